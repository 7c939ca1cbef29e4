"""Which statements judge the whole image instead of saying what is seen in it: these are verdicts, no clues.

A verdict has the image as its subject, a copula and a verdict's word, whatever follows ("the image is clearly fake due to …",
"this photo was likely created by an AI model"), be it the statement or a clause of it ("… suggests that the image is fake"). None
is what compares something in the image with what is real ("this eye lacks the pores of real skin"), nor what is said of a thing
in it ("the hand in the image is fake"). A pronoun at the beginning stands for the image only if the word judges and does not
belong to a thing: "it is fake, as …", but "it is synthetic leather".
"""

import re

_PICTURE = r"(?:image|photo(?:graph)?|picture|scene|scan|document|portrait)"
_PREPOSITIONS = (
    "in of on at from with to by about across around behind inside near over through throughout under within"
)
# What is said of all of it; the ID photo and the background scene are things in it.
_OF_ALL = (
    r"(?:given|whole|entire|overall|input|present|provided|shown|above|first|second|final|following|very)"
)
# Not behind a preposition: there the subject is something in the image.
_IMAGE = (
    "".join(rf"(?<!\b{word} )" for word in _PREPOSITIONS.split())
    + rf"(?:\b(?:the|this|that)\W+(?:{_OF_ALL}\W+)?|^){_PICTURE}"
    # what may stand between: "the image you provided is …", "the image in question most likely is …"
    + r"(?:\W+(?:itself|as a whole|overall|(?:that )?(?:you |we )?(?:are )?(?:provided|shown|given|see|have|uploaded)|(?:shown |given )?here|in question|above))?"
)
_PRONOUN = (
    r"(?:^|^(?:overall|so|thus|hence|therefore|clearly)\W+|\b(?:suggest|indicat|show|mean|impl|prov|confirm)\w*(?:\W+that)?\W+)"
    r"(?:it|this|that|(?:the|this)\W+(?:video\W+)?frame)"
)
_MORE = r"(?:\w+ly|an?|the|not|no|most|more|less|quite|very|rather|too|so|indeed|in fact|almost|to|be|being|been|have|as|if|like)"
_IS = (
    r"(?:\W+(?:most |very )?(?:\w+ly|indeed))?\W+(?:is(?:n'?t)?|was|looks?|seems?|appears?|must|may|might|could|can(?:not|'t)?|should"
    r"|does(?:\W+not|n'?t)\W+(?:look|seem|appear)|has(?=\W+(?:\w+ly\W+)?been))\b"
    rf"(?:\W+{_MORE})*\W+"
)
_MADE = r"(?:generated|made|created|produced|rendered)"
_WORD = (
    r"(?:(?:deep[- ]?)?fake[ds]?|real|(?:in)?authentic|genuine|synthetic|synthesi[sz]ed|manipulated|doctored|forged|composite|generated"
    rf"|(?:AI|machine|computer|artificially|digitally|synthetically)\W(?:{_MADE}|altered|edited|{_PICTURE})"
    rf"|{_MADE}\W+(?:by|with|using)\W+(?:an?\W+)?(?:\w+\W+)?"
    r"(?:AI|artificial|diffusion|GANs?|generative|generator|neural|computer|machine|model)\b)"
)
# What may follow a word that judges; a noun makes it a thing's.
_ON = (
    rf"(?!\w|-\w|\s+(?!{_PICTURE}|(?:AI|one|and|or|but|because|as|since|due|with|based|given|in|on|at|for|from|to|than|rather|by|using"
    r"|despite|that|which|when|not|overall|through|around|under)\b)[a-z])"
)
# What is left of "it looks fake due to …" once `clauses` has tidied it; "fake, glossy leaves" are a thing.
_REST = (
    rf"^(?:(?:to|be|been|not|an?|\w+ly)\W+)*{_WORD}"
    rf"(?:\s+{_PICTURE}(?=,)|(?:\s+{_PICTURE})?(?=\W*$|,?\s+(?:because|as|since|due|with|based|given|despite|which)\b))"
)
_VERDICT = re.compile(rf"{_IMAGE}{_IS}{_WORD}(?!\w)|{_PRONOUN}{_IS}{_WORD}{_ON}|{_REST}", re.IGNORECASE)


def is_verdict(statement: str) -> bool:
    """Whether a statement, as `clauses.split` leaves it, says what the image is: fake, real, generated."""
    return bool(_VERDICT.search(statement))
