"""From a model's prose to single statements: sentences, bullets and joined clauses apart, hedges and markup removed.

Written for what large multimodal models write: Markdown, numbered lists, headings, "Texture: …", "it seems that …".
"""

import re

_MARKUP = re.compile(r"[*_`#>]+")
_BULLET = re.compile(r"^\s*(?:[-–•·+*]|\(?\d{1,2}[.):]|[a-z]\))\s+")
# "Texture:", "Lighting & shadows in the background:", "Surface and colour -": a title of at most five words, before a dash of
# three, unless it is a statement itself ("The hands are fused: …").
_TITLE = re.compile(r"^\s*[A-Z][\w&/'-]*(?:(?:[ ,]+[\w&/'-]+){0,4}\s*:|(?:[ ,]+[\w&/'-]+){0,2}\s[-–—]\s)\s*")
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|lacks?|shows?|seems?|appears?|looks?)\b")
_SENTENCE = re.compile(r"(?<=[.!?])[\"')]*\s+|;|\n|\s[–—]\s")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|approx|vs|cf)\.(?=\W)", re.IGNORECASE)  # no end of a sentence
# A comma and a conjunction between four words or more on both sides start a statement; "fur, eyes, and ears" do not.
_JOINED = re.compile(r",\s*(?:and|but|while|whereas|plus|although)\s+(?:also\s+)?", re.IGNORECASE)
_LEAST_JOINED = 4
_OPENING = re.compile(
    r"^(?:(?:additionally|also|furthermore|moreover|overall(?=[,:])|first(?:ly|(?=[,:]))|second(?:ly|(?=[,:]))|third(?:ly|(?=[,:]))|finally|lastly|in conclusion|in summary|to sum up|"
    r"notably|interestingly|however(?=[,:])|similarly|in addition|in particular|for example|for instance|looking closely|"
    r"(?:on|upon) (?:a )?closer (?:inspection|look|examination)|at first glance|as for|and|but|then|plus|"
    r"perhaps|possibly|probably|maybe|presumably|arguably|apparently|potentially|"
    r"i (?:can )?(?:think|believe|notice|see|observe|would say|suspect)(?: that)?|we (?:can )?(?:see|notice|observe)(?: that)?|"
    r"(?:it|one|you) (?:can|could|may|might) (?:be |also )*(?:seen?|noticed?|observed?)(?: that)?|"
    r"it (?:seems|appears|looks)(?: as if| as though| like| that)?|"
    r"it is (?:noticeable|visible|clear|evident|apparent|obvious|worth noting|notable)(?: that)?|it is (?:possible|likely) that|"
    r"what stands out is(?: that)?|to me)\b[\s,:]*)+",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"[\s,]*\(?\b(?:i think|i believe|i suppose|i guess|perhaps|possibly|probably|maybe|it seems|if i see it right|"
    r"i would say|to my eye|as well|too)\)?$",
    re.IGNORECASE,
)
# "appears to be fused" claims "is fused"; the claim is what witnesses agree on.
_MIDDLE = (
    (re.compile(r"\b(?:seems|appears|looks) (?:as if it is|as though it is|to be)\b", re.IGNORECASE), "is"),
    (re.compile(r"\b(?:seem|appear|look) (?:as if they are|as though they are|to be)\b", re.IGNORECASE), "are"),
    (re.compile(r"\b(?:seems|appears) to have\b", re.IGNORECASE), "has"),
    (re.compile(r"\b(?:seem|appear) to have\b", re.IGNORECASE), "have"),
    (re.compile(r"\b(?:seem|appear) to\b\s*", re.IGNORECASE), ""),
    (re.compile(r"\b(?:seems|appears)\b(?! to\b)(?! (?:in|on|near|at|behind|beside|twice|next|over|to|from|as|out|through|under|above|between|within)\b)", re.IGNORECASE), "is"),
    (re.compile(r"\b(?:perhaps|possibly|probably|maybe|presumably|arguably|apparently|somewhat|a bit|rather(?! than\b)|quite(?! a\b)) ", re.IGNORECASE), ""),
)  # fmt: skip
_MODAL = re.compile(r"\b(\w+) (?:may|might|could) (?:possibly |perhaps )?be\b", re.IGNORECASE)


def _is(match: re.Match[str]) -> str:
    plural = match[1].endswith("s") and not match[1].endswith(("ss", "us", "is"))
    return f"{match[1]} {'are' if plural else 'is'}"


def normalise(clause: str) -> str:
    """A statement without markup, opening words, hedges and final stop; lower-case start. May come out empty."""
    clause = _MARKUP.sub("", clause).strip()
    clause = _OPENING.sub("", clause)
    clause = _MODAL.sub(_is, clause)
    for pattern, plain in _MIDDLE:
        clause = pattern.sub(plain, clause)
    clause = re.sub(r"\s+", " ", clause).strip(" \t.,:;!?\"'-–—")
    clause = _CLOSING.sub("", clause).strip(" ,")
    first = clause.split(" ", 1)[0]
    # Names and abbreviations (JPEG, I) keep their capitals.
    return clause if first.isupper() and len(first) > 1 else clause[:1].lower() + clause[1:]


def _unjoined(sentence: str) -> list[str]:
    parts, start = [], 0
    for match in _JOINED.finditer(sentence):
        before, after = sentence[start : match.start()], sentence[match.end() :].split(",")[0]
        if min(len(before.split()), len(after.split())) >= _LEAST_JOINED:
            parts.append(before)
            start = match.end()
    return [*parts, sentence[start:]]


def split(caption: str, least_words: int = 3) -> list[str]:
    """The statements of a caption, normalised, in order, without repeats.

    Args:
        caption: free text, perhaps Markdown.
        least_words: shorter pieces are headings or remains and are dropped.
    """
    statements: dict[str, None] = {}
    for line in _ABBREVIATION.sub(lambda match: match[0].replace(".", ""), caption).splitlines():
        line = _BULLET.sub("", _MARKUP.sub("", line))
        if (title := _TITLE.match(line)) and not _VERB.search(title[0]):
            line = line[title.end() :]
        for sentence in _SENTENCE.split(line):
            for part in _unjoined(sentence):
                statement = normalise(part)
                if len(statement.split()) >= least_words:
                    statements.setdefault(statement)
    return list(statements)
