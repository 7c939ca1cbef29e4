"""What stands in for every language model of profile `paper`: `reply`, which depends on the request alone."""

import hashlib
import json
import re

CAPTIONS = {
    "fake": "The texture of the surface is waxy and smeared. "
    "The edges are bent where they should be straight. The shadow falls in an impossible direction.",
    "real": "The texture shows a natural grain. The edges are straight and consistent. "
    "The shadows agree with the light.",
}


def reply(body: dict) -> str:
    """Return what the model says to a request.

    An annotator writes a caption for the label, an aggregator the JSON of its schema with what all observers
    said, a baseline a verdict drawn from the image's bytes.
    """
    parts = body["messages"][0]["content"]
    text = " ".join(part["text"] for part in parts if part["type"] == "text")
    if "response_format" in body:
        observers = json.loads(text[text.rindex("[\n") :])
        verdict = re.search(r"It is known to be (fake|real)", text)[1]
        everyone = [observer["observer"] for observer in observers]
        sentences = re.split(r"(?<=\.) ", observers[0]["said"])
        points = [{"statement": s.rstrip("."), "annotators": everyone, "critical": False} for s in sentences]
        families = ("texture", "geometry", "lighting")
        return json.dumps({"verdict": verdict, **{f: points[n : n + 1] for n, f in enumerate(families)}})
    if label := re.search(r"The image is known to be (FAKE|REAL)", text):
        return CAPTIONS[label[1].lower()]
    image = next((part["image_url"]["url"] for part in parts if part["type"] == "image_url"), "")
    chance = hashlib.sha256(f"{body['model']} {image} {text}".encode()).digest()[0]
    verdict = ("fake", "real")[chance % 2]
    return f"This is a {verdict} image. {CAPTIONS[verdict]}"
