r"""Read a verdict from a text ("fake", "real" or "unparsed"), and P(fake) from the token where it stands.

1. Mark-up, reasoning, questions and "real or fake" become spaces; the rest is cut into sentences and clauses.
2. A clause makes a claim if it holds a verdict word that ends the phrase or describes the image ("a fake
   image", not "a fake moustache"). Negations before it turn the claim. Doubt ("may be") claims nothing.
3. The strongest claim wins (`Claim.rank`), the first of equals. Those of one sentence must agree to count.
4. Without a claim, "Yes" and "No" count if the question asks for one of the two ("Is this image fake?").
"""

import bisect
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

# Decimals of the log-odds of fake that count: machines and batch sizes differ beyond. Decimals of P(fake)
# itself would tie most answers of a model that is very sure, and ties are half an error each in the AUC.
DIGITS = 5

Verdict = Literal["fake", "real", "unparsed"]

_IMAGE = (
    r"(?:image|picture|photo\w*|shot|snapshot|frame|video|one|face|person|human|man|woman|portrait|selfie"
    r"|scan|scene|document|page|newspaper|magazine|article|paper|map|view|content|art|artwork"
    r"|creation)s?(?![\w-])"
)
_MADE = r"(?:generated|created|made|produced|rendered|synthesi[sz]ed|altered|edited|manipulated|enhanced)"
_FAKE = (
    r"(?:deep[- ]?)?fake[ds]?|synthetic|synthesi[sz]ed|cgi|artificial|forged|forgery|fabricated|doctored"
    r"|manipulated|photoshopped|inauthentic|unauthentic|unnatural|unrealistic|generated|edited|altered"
    rf"|tampered|swapped|(?:ai|gan|computer|machine|model|digitally|artificially|synthetically)[-\s]+{_MADE}"
    rf"|{_MADE} (?:by|with|using) (?:an? )?(?:ai|artificial intelligence|gan|generative|(?:stable )?diffusion"
    r"|midjourney|computer)\b|(?:digital|computer|3d|cgi) (?:art|artwork|illustration|painting|graphics)"
    r"|render(?:ing)?|editing|manipulation|tampering"
    r"|(?:ai|digital|image|photo) (?:generation|editing|alteration)"
    r"|ai (?:image|picture|photo|art|creation)|(?<!an )ai"
)
_REAL = (
    r"real(?:[- ](?:life|world))?|authentic|genuine|natural|legitimate|unedited|unaltered|unmanipulated"
    r"|(?:taken|captured) (?:by|with) an? (?:\w+ )?camera"
)
# After the word: the end, punctuation, a noun for the image, or a word that begins something new.
_AFTER = (
    r"(?![\w'-])(?=\s*$|\s*[^\w\s'-]|\s+(?:and|or|but|because|as|since|due|with|in|to|by|from|overall|at"
    r"|rather|than|for|that|which|not|on|based|given|when|using|instead|so|through"
    r"|while|though|although|about"
    rf"|is|are|around)\b|\s+(?:(?!of\b|with\b|in\b|on\b|at\b)[\w'-]+\s+){{0,2}}?{_IMAGE})"
)
_WORD = re.compile(rf"(?i)(?<![\w-])(?:(?P<fake>{_FAKE})|(?P<real>{_REAL})){_AFTER}")
_NOT = re.compile(
    r"(?i)\b(?:not(?! only| just| merely)|no(?! doubt| question)|without(?! (?:a )?doubt)|cannot|never|hardly"
    r"|unlikely|nothing|rather than|instead of|unlike|than|lacks?|free (?:of|from)|far from|anything but"
    r"|too [\w-]+ to)\b|n't\b"
)
_DOUBT = re.compile(
    r"(?i)\b(?:whether|if|may|might|could|possibl[ey]|perhaps|maybe|either|neither|necessarily|chance"
    r"|at first|initially|un(?:sure|clear|certain|able)|not (?:sure|certain|clear|able)"
    r"|(?:impossible|difficult|hard) to|to (?:look|appear|seem)"
    r"|would(?! (?:say|classify|guess|conclude|call|judge))|(?:cannot|can't|can not)"
    r" (?:\w+ly )?(?:be \w+ed|confirm|determine|tell|say|verify|judge|decide|know|assess))\b"
)
_CONCLUSION = re.compile(
    r"(?i)\b(?:overall|therefore|thus|hence|conclude|conclusion|answer|verdict|label|prediction)\b"
)
_LOOKS = re.compile(r"(?i)\b(?:look|appear|seem|feel)(?:s|ed)?\b")
_VERB = re.compile(
    rf"{_LOOKS.pattern}|\b(?:(?:is|was|are|were)(?:n't)?|be|been|being|as|has|have|had"
    r"|shows?|contains?)(?!\w)|(?<=\w)'s\b"
)
_OPENING = re.compile(r"(?i)(?:\W|\b(?:not|also|most|likely|more|to|an?|the|100%|\w+ly)\b)*")
_SUBJECT = re.compile(
    rf"(?i)(?:^|\b(?:this|these|it|that|which|there|everything|answer|verdict|{_IMAGE}))\W*$"
)
_CLAUSE = re.compile(
    r"(?i)[,;:()–—{}|]+|--| - |\b(?:however|(?<!anything )but|yet|although|though|because|since|while|so)\b"
    r"|\band (?=(?:it|this|the|there|is|looks?|appears?|shows?|has)\b)"
)
_SENTENCE = re.compile(r"[.!?]+(?=[\s\"'*)]|$|[A-Z])|\n+")
_OR = r",? *(?:/|or|and|nor|vs\.?|versus) *(?:an? )?"
_SKIPPED = (  # in this order
    re.compile(r"(?is)<(think|thinking|reasoning)>.*?(?:</\1>|$)|\A(?:(?!<think).)*</think(?:ing)?>"),
    re.compile(r"\\text\w*\{|[*_`#\"“”‘$\\]|(?<!\w)'|'(?!\w)"),
    re.compile(r"(?:^|(?<=[.!?\n]))[^.!?\n]*\?"),
    re.compile(rf"(?i)(?<![\w-])(?:(?:{_FAKE}){_OR}(?:{_REAL})|(?:{_REAL}){_OR}(?:{_FAKE}))(?!\w)"),
)
# The format of FakeClue's answers. What follows explains, and a quoted caption cannot turn it.
_FAKECLUE = re.compile(r"(?i)(?<=\Athis is a )(?:(?P<fake>fake)|real)(?= image\b)")
_FLAG = re.compile(r'(?i)"(?:is_)?(?:(?P<fake>fake)|real)"\s*:\s*(?:(?P<yes>true|"yes")|false|"no")')


@dataclass(frozen=True)
class Claim:
    """A verdict in a text."""

    verdict: Verdict  # fake or real
    word: tuple[int, int]  # start and end of the verdict word in the text, in characters
    negated: bool  # a negation turns the word, so that it is the opposite of the verdict
    rank: int  # 0 a conclusion ("overall"), 1 the image is, 2 the image looks, 3 a part of it is or looks


def _claim(word: re.Match, offset: int = 0, negated: bool = False, rank: int = 0) -> Claim:
    verdict: Verdict = "fake" if bool(word["fake"]) != negated else "real"
    return Claim(verdict, (offset + word.start(), offset + word.end()), negated, rank)


def _plain(text: str) -> str:
    """Return the text with spaces for all that is not read; `\\boxed{` reads "answer:". The length stays."""
    text = text.replace("\\boxed{", "answer:").replace("<answer>", "answer: ").replace("’", "'")
    text = re.sub(r"(?i)\ba\.i\.", "ai  ", text)
    for pattern in _SKIPPED:
        text = pattern.sub(lambda match: " " * len(match.group()), text)
    return text


def _between(separator: re.Pattern, text: str) -> Iterator[tuple[int, str]]:
    """Yield start and words of what lies between the separators."""
    start = 0
    for match in separator.finditer(text):
        yield start, text[start : match.start()]
        start = match.end()
    yield start, text[start:]


def _rank(before: str) -> int:
    """Return a claim's rank, from the words of its clause before the verdict word."""
    verb = _VERB.search(before)
    if not verb:
        return 1 if _OPENING.fullmatch(before) else 3
    # "The colours of the face are natural" is about the colours.
    subject = re.split(r"(?<=\w)\s+(?:of|in|on|at|from|with)\b", before[: verb.start()])[0]
    if not _SUBJECT.search(subject):
        return 3
    return 2 if _LOOKS.search(before) else 1


def _claims(sentence: str, offset: int) -> Iterator[Claim]:
    concludes = False
    for start, clause in _between(_CLAUSE, sentence):
        concludes |= bool(_CONCLUSION.search(clause))
        word = _WORD.search(clause)
        if not word or _DOUBT.search(clause[: word.end()]):
            continue
        before = clause[max(0, word.start() - 300) : word.start()]
        rank = _rank(before)
        if rank < 3 or not word.group().endswith("natural"):  # "the colours are natural" is no verdict
            negated = len(_NOT.findall(before)) % 2 == 1
            yield _claim(word, offset + start, negated, 0 if concludes and rank < 3 else rank)


def find(text: str) -> Claim | None:
    """Return the claim that decides the text's verdict; None where there is none."""
    if opening := _FAKECLUE.search(text.lstrip()):
        return _claim(opening, len(text) - len(text.lstrip()))
    if flag := _FLAG.search(text):  # JSON such as {"is_fake": false}
        return _claim(flag, negated=not flag["yes"])
    claims = [list(_claims(sentence, start)) for start, sentence in _between(_SENTENCE, _plain(text))]
    for rank in range(4):
        for sentence in claims:
            equals = [claim for claim in sentence if claim.rank == rank]
            if len({claim.verdict for claim in equals}) == 1:
                return equals[0]
    return None


def stands(text: str) -> bool:
    """Return whether a text has a verdict that no further words change: that of FakeClue's format."""
    return bool(re.search(rf"{_FAKECLUE.pattern} image\W", text.lstrip()))


def parse(text: str, question: str | None = None) -> Verdict:
    """Return the verdict that a text gives: `fake`, `real`, or `unparsed` (wrong to every metric).

    The question decides what a bare "Yes" or "No" means.
    """
    if claim := find(text):
        return claim.verdict
    answer = re.match(r"(?i)\W*(?:(yes)|no)\b", _plain(text))
    words = {bool(word["fake"]) for word in _WORD.finditer(question or "")}
    if not answer or len(words) != 1:
        return "unparsed"
    return "fake" if words == {bool(answer[1])} else "real"


def locate(token_ids: Sequence[int], tokenizer: Any) -> tuple[Claim, int] | None:
    """Return the deciding claim of a generated text and the token in which its word begins; None without one.

    `token_ids` are the generated ones, without the prompt; special tokens are skipped, as in the text.
    """
    ids = [int(i) for i in token_ids]
    claim = find(tokenizer.decode(ids, skip_special_tokens=True))
    if claim is None:
        return None
    # Decoded prefixes, for token by token some tokenizers lose spaces.
    ends = range(1, len(ids) + 1)
    length = lambda end: len(tokenizer.decode(ids[:end], skip_special_tokens=True))  # noqa: E731
    return claim, bisect.bisect_right(ends, claim.word[0], hi=len(ids) - 1, key=length)


def p_fake(difference: float, negated: bool = False) -> float:
    """Return P(fake) at the verdict's place: the softmax over the words "fake" and "real".

    Args:
        difference: log-sum-exp of the logits of "fake" minus that of "real", each over its `word_ids`.
        negated: the word stands under a negation ("is not …"), so the verdict is its opposite.
    """
    odds = round(-difference if negated else difference, DIGITS)
    return 1 / (1 + math.exp(min(-odds, 700)))  # scipy's expit, bit for bit


def round_log_odds(p_fake: np.ndarray) -> np.ndarray:
    """Return P(fake) of other models, (n,) float64, with its log-odds rounded as in `p_fake`."""
    from scipy.special import expit, logit

    with np.errstate(divide="ignore"):
        return expit(np.round(logit(p_fake), DIGITS))


def word_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the token ids that begin the words "fake" and "real", in all spellings (" fake", "Fake", …).

    A spelling counts if it is a single token for at least one of the words; the other word's first token
    then stands for it (LLaMA has " Real" as one token, " Fake" as " F" and "ake"). If there is no such
    spelling, the first tokens of " fake" and " real" count. Ids that begin both words are left out.

    Raises:
        ValueError: the two words begin alike in every spelling.
    """
    fake: set[int] = set()
    real: set[int] = set()
    forms = [(form("fake"), form("real")) for form in (str.lower, str.capitalize, str.upper)]
    for space, (one, other) in itertools.product((" ", ""), forms):
        fake_ids, real_ids = _tokens(tokenizer, space + one), _tokens(tokenizer, space + other)
        if min(len(fake_ids), len(real_ids)) == 1:
            fake.add(fake_ids[0])
            real.add(real_ids[0])
    if not fake:
        fake, real = {_tokens(tokenizer, " fake")[0]}, {_tokens(tokenizer, " real")[0]}
    if not fake - real or not real - fake:
        raise ValueError("the tokenizer begins 'fake' and 'real' with the same token: there is no P(fake)")
    return sorted(fake - real), sorted(real - fake)


def _tokens(tokenizer: Any, spelling: str) -> list[int]:
    ids = tokenizer.encode(spelling, add_special_tokens=False)
    # Sentence-piece tokenizers write a lone space token before " fake"; it says nothing.
    return [i for i in ids if tokenizer.decode([i]).strip()]
