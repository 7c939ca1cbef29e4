"""Take captions of large multimodal models apart: statements, their polarity, verdicts.

Written for prose, Markdown, numbered lists, headings, "Texture: …" and "it seems that …".
"""

import re

_MARKUP = re.compile(r"[*_`#>]+")
_BULLET = re.compile(r"^\s*(?:[-–•·+*]|\(?\d{1,2}[.):]|[a-z]\))\s+")
# A title has at most five words before a colon, three before a dash ("Texture:", "Surface and colour -"),
# and no verb: "The hands are fused: …" is a statement.
_TITLE = re.compile(r"^\s*[A-Z][\w&/'-]*(?:(?:[ ,]+[\w&/'-]+){0,4}\s*:|(?:[ ,]+[\w&/'-]+){0,2}\s[-–—]\s)\s*")
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|lacks?|shows?|seems?|appears?|looks?)\b")
_SENTENCE = re.compile(r"(?<=[.!?])[\"')]*\s+|;|\n|\s[–—]\s")
_ABBREVIATION = re.compile(
    r"\b(?:e\.g|i\.e|etc|approx|vs|cf)\.(?=\W)", re.IGNORECASE
)  # its stop ends no sentence
# A comma and a conjunction between four words or more on both sides start a statement.
# "fur, eyes, and ears" stays whole.
_JOINED = re.compile(r",\s*(?:and|but|while|whereas|plus|although)\s+(?:also\s+)?", re.IGNORECASE)
_LEAST_JOINED = 4
_OPENING = re.compile(
    r"^(?:(?:additionally|also|furthermore|moreover|overall(?=[,:])|first(?:ly|(?=[,:]))|second"
    r"(?:ly|(?=[,:]))|third(?:ly|(?=[,:]))|finally|lastly|in conclusion|in summary|to sum up|"
    r"notably|interestingly|however(?=[,:])|similarly|in addition|in particular|for example|for instance|"
    r"looking closely|(?:on|upon) (?:a )?closer (?:inspection|look|examination)|at first glance|as for|"
    r"and|but|then|plus|"
    r"perhaps|possibly|probably|maybe|presumably|arguably|apparently|potentially|"
    r"i (?:can )?(?:think|believe|notice|see|observe|would say|suspect)(?: that)?|"
    r"we (?:can )?(?:see|notice|observe)(?: that)?|"
    r"(?:it|one|you) (?:can|could|may|might) (?:be |also )*(?:seen?|noticed?|observed?)(?: that)?|"
    r"it (?:seems|appears|looks)(?: as if| as though| like| that)?|"
    r"it is (?:noticeable|visible|clear|evident|apparent|obvious|worth noting|notable)(?: that)?|"
    r"it is (?:possible|likely) that|"
    r"what stands out is(?: that)?|to me)\b[\s,:]*)+",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"[\s,]*\(?\b(?:i think|i believe|i suppose|i guess|perhaps|possibly|probably|maybe|it seems|"
    r"if i see it right|i would say|to my eye|as well|too)\)?$",
    re.IGNORECASE,
)
# "appears to be fused" becomes "is fused", so that hedged and plain claims agree.
_HEDGES = [
    (re.compile(pattern, re.IGNORECASE), plain)
    for pattern, plain in (
        (r"\b(?:seems|appears|looks) (?:as if it is|as though it is|to be)\b", "is"),
        (r"\b(?:seem|appear|look) (?:as if they are|as though they are|to be)\b", "are"),
        (r"\b(?:seems|appears) to have\b", "has"),
        (r"\b(?:seem|appear) to have\b", "have"),
        (r"\b(?:seem|appear) to\b\s*", ""),
        (
            r"\b(?:seems|appears)\b(?! to\b)(?! (?:in|on|near|at|behind|beside|twice|next|over|to|from|as|"
            r"out|through|under|above|between|within)\b)",
            "is",
        ),
        (
            r"\b(?:perhaps|possibly|probably|maybe|presumably|arguably|apparently|somewhat|a bit|"
            r"rather(?! than\b)|quite(?! a\b)) ",
            "",
        ),
    )
]
_MODAL = re.compile(r"\b(\w+) (?:may|might|could) (?:possibly |perhaps )?be\b", re.IGNORECASE)

# Polarity: embeddings hardly tell "the shadows agree" from "the shadows contradict each other".
_WRONG = re.compile(
    r"\b(?:un(?:natural|real|even|explained|usual|readable|intelligible|convincing|balanced|matched|related"
    r"|expected)\w*"
    r"|in(?:consisten|correct|congru|coheren|accura|complete)\w*|im(?:possib|plausib|proper|balanc)\w*"
    r"|dis(?:tort|proportion|continu|connect|joint|appear|solv|colou?r|place)\w*"
    r"|mis(?:align|match|shap|plac|sing|form|spell)\w*|mal(?:form)\w*|wrong\w*|deform\w*|warp\w*|bent|bends?"
    r"|wavy|crooked|twist\w*|melt\w*|smear\w*|smudg\w*|garbl\w*|gibberish|nonsens\w*|illegible|scrambl\w*"
    r"|extra|superfluous|lacks?|lacking|overly|excessiv\w*|duplicat\w*|doubled|twice|repeat\w*|repetiti\w*"
    r"|tiled|broken|breaks?|abrupt\w*|float\w*|hover\w*|fus(?:ed|es|ing)|merg\w*|contradict\w*|differ\w*"
    r"|different|strange\w*|odd\w*|weird\w*|halos?|artificial\w*|plastic\w*|wax\w*|glitch\w*|jagged"
    r"|asymmetr\w*|shifted|offset|speckl\w*|overexposed|oversaturated|too|nowhere|anomal\w*|artifacts?"
    r"|flaws?|fails?|without any|no visible|ghost\w*|checker\w*|airbrush\w*|painted|painterly|glow\w*|glare"
    r"|tint\w*|(?:blend|fade|run|bleed|melt)s? into|no longer)\b",
    re.IGNORECASE,
)
_RIGHT = re.compile(
    r"\b(?:natural(?:ly)?|consisten(?:t|tly|cy)|coheren\w*|correct(?:ly)?|realis(?:tic|m)\w*|plausib\w*"
    r"|proportion(?:ed|ate|al)|agrees?|match(?:es|ing)?|corresponds?|ordinary|typical\w*|normal\w*|expected"
    r"|legible|readable|crisp\w*|clear\w*|even(?:ly)?|balanced|authentic\w*|straight|continuous\w*"
    r"|continues?|intact|complete|genuine\w*|convincing\w*|accurate\w*|believabl\w*"
    r"|fine(?=,? (?:\w+,? ){0,2}(?:details?|grain|strands|textures?|lines|hairs?|wrinkles))|aligned|smoothly"
    r"|organic\w*|logical\w*|properly|well|individual|steady)\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:no|not|none|never|without|free of|free from|lacks?|lacking|absence of|neither|nor|instead of"
    r"|rather than|cannot|hardly|barely|less|\w+n't|should be|would be|one would|you would)\b",
    re.IGNORECASE,
)
_NEGATION_END = re.compile(r"[,:]|\b(?:and|but|is|are|yet)\b", re.IGNORECASE)
_NEGATION_REACH = 5  # words between a negation and the furthest word that it turns over

# Verdicts. The subject is the image, then come a copula and a word that judges, in a clause or as the
# statement. No verdict: a comparison with what is real ("this eye lacks the pores of real skin"), a claim
# about a thing in the image ("the hand in the image is fake"), a material ("it is synthetic leather").
_PICTURE = r"(?:image|photo(?:graph)?|picture|scene|scan|document|portrait)"
_PREPOSITIONS = (
    "in of on at from with to by about across around behind inside near over through throughout under within"
)
# Adjectives of the whole image; an ID photo and a background scene are things in it.
_WHOLE = (
    r"(?:given|whole|entire|overall|input|present|provided|shown|above|first|second|final|following|very)"
)
# Not after a preposition: there the subject is something in the image.
_IMAGE = (
    "".join(rf"(?<!\b{word} )" for word in _PREPOSITIONS.split())
    + rf"(?:\b(?:the|this|that)\W+(?:{_WHOLE}\W+)?|^){_PICTURE}"
    # words in between: "the image you provided is …", "the image in question most likely is …"
    + r"(?:\W+(?:itself|as a whole|overall"
    r"|(?:that )?(?:you |we )?(?:are )?(?:provided|shown|given|see|have|uploaded)"
    r"|(?:shown |given )?here|in question|above))?"
)
_PRONOUN = (
    r"(?:^|^(?:overall|so|thus|hence|therefore|clearly)\W+"
    r"|\b(?:suggest|indicat|show|mean|impl|prov|confirm)\w*(?:\W+that)?\W+)"
    r"(?:it|this|that|(?:the|this)\W+(?:video\W+)?frame)"
)
_ADVERBS = (
    r"(?:\w+ly|an?|the|not|no|most|more|less|quite|very|rather|too|so|indeed|in fact|almost"
    r"|to|be|being|been|have|as|if|like)"
)
_IS = (
    r"(?:\W+(?:most |very )?(?:\w+ly|indeed))?\W+(?:is(?:n'?t)?|was|looks?|seems?|appears?"
    r"|must|may|might|could|can(?:not|'t)?|should"
    r"|does(?:\W+not|n'?t)\W+(?:look|seem|appear)|has(?=\W+(?:\w+ly\W+)?been))\b"
    rf"(?:\W+{_ADVERBS})*\W+"
)
_MADE = r"(?:generated|made|created|produced|rendered)"
_JUDGEMENT = (
    r"(?:(?:deep[- ]?)?fake[ds]?|real|(?:in)?authentic|genuine|synthetic|synthesi[sz]ed|manipulated|doctored"
    r"|forged|composite|generated"
    rf"|(?:AI|machine|computer|artificially|digitally|synthetically)\W(?:{_MADE}|altered|edited|{_PICTURE})"
    rf"|{_MADE}\W+(?:by|with|using)\W+(?:an?\W+)?(?:\w+\W+)?"
    r"(?:AI|artificial|diffusion|GANs?|generative|generator|neural|computer|machine|model)\b)"
)
# What may follow a judgement; a noun would make it a property of a thing.
_AFTER = (
    rf"(?!\w|-\w|\s+(?!{_PICTURE}|(?:AI|one|and|or|but|because|as|since|due|with|based|given|in|on|at|for"
    r"|from|to|than|rather|by|using"
    r"|despite|that|which|when|not|overall|through|around|under)\b)[a-z])"
)
# What `split` leaves of "it looks fake due to …"; "fake, glossy leaves" are a thing.
_REMAINDER = (
    rf"^(?:(?:to|be|been|not|an?|\w+ly)\W+)*{_JUDGEMENT}"
    rf"(?:\s+{_PICTURE}(?=,)|(?:\s+{_PICTURE})?"
    r"(?=\W*$|,?\s+(?:because|as|since|due|with|based|given|despite|which)\b))"
)
_VERDICT = re.compile(
    rf"{_IMAGE}{_IS}{_JUDGEMENT}(?!\w)|{_PRONOUN}{_IS}{_JUDGEMENT}{_AFTER}|{_REMAINDER}", re.IGNORECASE
)


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

    Args:
        caption: free text, perhaps Markdown.
        least_words: drop shorter pieces, which are headings or remainders.
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


def is_verdict(statement: str) -> bool:
    """Return whether a statement from `split` judges the whole image: fake, real, generated."""
    return bool(_VERDICT.search(statement))
