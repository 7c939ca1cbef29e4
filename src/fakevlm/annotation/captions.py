"""Take captions apart (prose, Markdown, lists, "Texture: …"): statements, their polarity, verdicts."""

import re
from pathlib import Path

import yaml

_MARKUP = re.compile(r"[*_`#>]+")
_BULLET = re.compile(r"^\s*(?:[-–•·+*]|\(?\d{1,2}[.):]|[a-z]\))\s+")
# A title has at most five words before a colon, three before a dash ("Texture:", "Surface and colour -"),
# and no verb: "The hands are fused: …" is a statement.
_TITLE = re.compile(r"^\s*[A-Z][\w&/'-]*(?:(?:[ ,]+[\w&/'-]+){0,4}\s*:|(?:[ ,]+[\w&/'-]+){0,2}\s[-–—]\s)\s*")
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|lacks?|shows?|seems?|appears?|looks?)\b")
_SENTENCE = re.compile(r"(?<=[.!?])[\"')]*\s+|;|\n|\s[–—]\s")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|approx|vs|cf)\.(?=\W)", re.IGNORECASE)
# A comma and a conjunction between four words or more on both sides start a statement.
# "fur, eyes, and ears" stays whole.
_JOINED = re.compile(r",\s*(?:and|but|while|whereas|plus|although)\s+(?:also\s+)?", re.IGNORECASE)
_LEAST_JOINED = 4


def _compiled(text: str) -> re.Pattern[str]:
    """Return a pattern of `captions.yaml`, with the patterns that it names in braces inserted."""
    while match := re.search(r"\{([a-z_]+)\}", text):
        text = text.replace(match[0], _TEXTS[match[1]])
    return re.compile("".join(text.splitlines()), re.IGNORECASE)


_TEXTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_OPENING, _CLOSING = _compiled(_TEXTS["opening"]), _compiled(_TEXTS["closing"])
_HEDGES = [(_compiled(hedge), plain) for hedge, plain in _TEXTS["hedges"].items()]
_MODAL = re.compile(r"\b(\w+) (?:may|might|could) (?:possibly |perhaps )?be\b", re.IGNORECASE)
_WRONG, _RIGHT = _compiled(_TEXTS["wrong"]), _compiled(_TEXTS["right"])
EMPHASIS, SLIGHT = _compiled(_TEXTS["emphasis"]), _compiled(_TEXTS["slight"])
_NEGATION, _NEGATION_END = _compiled(_TEXTS["negation"]), _compiled(_TEXTS["negation_end"])
_NEGATION_REACH = 5  # words between a negation and the furthest word that it turns over
JUDGEMENT = _compiled(_TEXTS["verdict"])  # in a statement about the whole image: fake, real, generated


def _is(match: re.Match[str]) -> str:
    plural = match[1].endswith("s") and not match[1].endswith(("ss", "us", "is"))
    return f"{match[1]} {'are' if plural else 'is'}"


def normalise(clause: str) -> str:
    """Return a statement without markup, opening words, hedges and stop, lower-case; perhaps empty."""
    clause = _MARKUP.sub("", clause).strip()
    clause = _OPENING.sub("", clause)
    clause = _MODAL.sub(_is, clause)
    for pattern, plain in _HEDGES:
        clause = pattern.sub(plain, clause)
    clause = re.sub(r"\s+", " ", clause).strip(" \t.,:;!?\"'-–—")
    clause = _CLOSING.sub("", clause).strip(" ,")
    first = clause.split(" ", 1)[0]
    # Names and abbreviations (JPEG) keep their capitals.
    return clause if first.isupper() and len(first) > 1 else clause[:1].lower() + clause[1:]


def _clauses(sentence: str) -> list[str]:
    parts, start = [], 0
    for match in _JOINED.finditer(sentence):
        before, after = sentence[start : match.start()], sentence[match.end() :].split(",")[0]
        if min(len(before.split()), len(after.split())) >= _LEAST_JOINED:
            parts.append(before)
            start = match.end()
    return [*parts, sentence[start:]]


def split(caption: str, least_words: int = 3) -> list[str]:
    """Return the statements of a caption, normalised, in order, without repeats.

    Those with less than `least_words` are headings or remainders, and dropped.
    """
    statements: dict[str, None] = {}
    for line in _ABBREVIATION.sub(lambda match: match[0].replace(".", ""), caption).splitlines():
        line = _BULLET.sub("", _MARKUP.sub("", line))
        if (title := _TITLE.match(line)) and not _VERB.search(title[0]):
            line = line[title.end() :]
        for sentence in _SENTENCE.split(line):
            for clause in _clauses(sentence):
                statement = normalise(clause)
                if len(statement.split()) >= least_words:
                    statements.setdefault(statement)
    return list(statements)


def polarity(statement: str) -> int:
    """Return −1 for something wrong, 1 for something as it should be, 0 if words do not say."""
    negations = [match.end() for match in _NEGATION.finditer(statement)]
    score = 0
    for pattern, value in ((_WRONG, -1), (_RIGHT, 1)):
        for match in pattern.finditer(statement):
            between = [statement[end : match.start()] for end in negations if end <= match.start()]
            negated = any(
                len(words.split()) < _NEGATION_REACH and not _NEGATION_END.search(words) for words in between
            )
            score += -value if negated else value
    return (score > 0) - (score < 0)
