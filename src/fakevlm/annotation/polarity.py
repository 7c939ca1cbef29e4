"""Does a statement say that something is wrong with the image, or that all is as it should be?

Sentence embeddings hardly tell "the shadows agree" from "the shadows contradict each other": the topic outweighs the
verdict. Words of approval and disapproval do, as long as negations turn them over ("no natural grain", "without breaks").
"""

import re

_WRONG = re.compile(
    r"\b(?:un(?:natural|real|even|explained|usual|readable|intelligible|convincing|balanced|matched|related|expected)\w*"
    r"|in(?:consisten|correct|congru|coheren|accura|complete)\w*|im(?:possib|plausib|proper|balanc)\w*"
    r"|dis(?:tort|proportion|continu|connect|joint|appear|solv|colou?r|place)\w*|mis(?:align|match|shap|plac|sing|form|spell)\w*"
    r"|mal(?:form)\w*|wrong\w*|deform\w*|warp\w*|bent|bends?|wavy|crooked|twist\w*|melt\w*|smear\w*|smudg\w*|garbl\w*|gibberish"
    r"|nonsens\w*|illegible|scrambl\w*|extra|superfluous|lacks?|lacking|overly|excessiv\w*|duplicat\w*|doubled|twice|repeat\w*"
    r"|repetiti\w*|tiled|broken|breaks?|abrupt\w*|float\w*|hover\w*|fus(?:ed|es|ing)|merg\w*|contradict\w*|differ\w*|different"
    r"|strange\w*|odd\w*|weird\w*|halos?|artificial\w*|plastic\w*|wax\w*|glitch\w*|jagged|asymmetr\w*|shifted|offset|speckl\w*"
    r"|overexposed|oversaturated|too|nowhere|anomal\w*|artifacts?|flaws?|fails?|without any|no visible|ghost\w*|checker\w*"
    r"|airbrush\w*|painted|painterly|glow\w*|glare|tint\w*|(?:blend|fade|run|bleed|melt)s? into|no longer)\b",
    re.IGNORECASE,
)
_RIGHT = re.compile(
    r"\b(?:natural(?:ly)?|consisten(?:t|tly|cy)|coheren\w*|correct(?:ly)?|realis(?:tic|m)\w*|plausib\w*|proportion(?:ed|ate|al)"
    r"|agrees?|match(?:es|ing)?|corresponds?|ordinary|typical\w*|normal\w*|expected|legible|readable|crisp\w*|clear\w*|even(?:ly)?|balanced"
    r"|authentic\w*|straight|continuous\w*|continues?|intact|complete|genuine\w*|convincing\w*|accurate\w*|believabl\w*"
    r"|fine(?=,? (?:\w+,? ){0,2}(?:details?|grain|strands|textures?|lines|hairs?|wrinkles))|aligned|smoothly|organic\w*|logical\w*|properly|well|individual|steady)\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:no|not|none|never|without|free of|free from|lacks?|lacking|absence of|neither|nor|instead of|rather than"
    r"|cannot|hardly|barely|less|\w+n't|should be|would be|one would|you would)\b",
    re.IGNORECASE,
)
_END = re.compile(r"[,:]|\b(?:and|but|is|are|yet)\b", re.IGNORECASE)  # where a negation stops reaching
_REACH = 5  # words between a negation and the furthest word that it turns over


def polarity(statement: str) -> int:
    """−1: something is wrong (an artifact). +1: something is as it should be (plausible). 0: the words do not say."""
    flips = [match.end() for match in _NEGATION.finditer(statement)]
    score = 0
    for pattern, value in ((_WRONG, -1), (_RIGHT, 1)):
        for match in pattern.finditer(statement):
            between = [statement[end : match.start()] for end in flips if end <= match.start()]
            negated = any(len(words.split()) < _REACH and not _END.search(words) for words in between)
            score += -value if negated else value
    return (score > 0) - (score < 0)
