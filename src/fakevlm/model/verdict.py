"""From a model's words to a verdict, and to the place among its tokens where P(fake) is read.

Why not search for "real" and "fake"? A parser that does takes "unrealistic" and "not real" for *real*, and one that draws
a label at random where it finds neither makes accuracies that nobody can repeat. Here a verdict is a *claim*: subject,
copula and verdict word ("this is a fake image", "it does not look real"), or an answer that opens with the word ("Fake.",
"A real photograph, because …"). Claims are read as follows.

* Sentence one decides; if it claims nothing, sentence two does. Later sentences explain and are not read. Sentences that
  end in a question mark echo the question and are skipped.
* A claim about the whole image (this, it, the image, the face …) outranks one about a part ("the texture looks real"),
  even one in the sentence before. Among those, "is" outranks "looks": "looks real but is fake" is *fake*.
* Negation turns a claim: "does not look real", "no sign of being fake", "too smooth to be real".
* No claim are alternatives ("real or fake"), doubt ("whether", "cannot tell", "may be"), the word as an attribute of
  something in the picture ("a fake moustache", "artificial light"), and conflicting claims of equal rank. What claims
  nothing is *unparsed*, and counts as wrong.
* "Realistic", "unrealistic", "natural" and "photograph" describe and decide nothing: "a realistic synthetic image" and "a
  fake photograph" are fake. "Generated", "synthetic", "manipulated", "authentic" and "genuine" are verdicts.
* "Yes" and "No" are verdicts only where the question asks for one of the two ("Is this image fake?"), not after
  "real/fake?".
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import expit, logit

Verdict = Literal["fake", "real", "unparsed"]

# Of the log-odds of fake: machines and batch sizes differ beyond. Decimals of P(fake) itself would not do: a large model is so
# sure that most of its answers would be exactly 0 or 1, and ties are half an error each in the AUC.
DIGITS = 5

_FAKE = (
    r"(?:deep[- ]?)?fake[ds]?|synthetic|synthesi[sz]ed|cgi|artificial|forged|forgery|fabricated|doctored|manipulated"
    r"|photoshopped|inauthentic|unauthentic"
    r"|(?:(?:ai|computer|machine|model|digitally|artificially|synthetically)[-\s]+)?generated"
    r"|(?:ai|artificially|synthetically)[-\s]+(?:created|made|produced|rendered|synthesi[sz]ed)"
    r"|(?:created|made|produced|rendered) (?:by|with|using) (?:an? )?(?:ai\b|artificial intelligence|gan\b|generative|diffusion|computer)"
)
_REAL = r"real(?![-\s](?:time|world|life|estate))|authentic|genuine"
_WORD = rf"(?:(?P<fake>{_FAKE})|(?P<real>{_REAL}))(?![\w'-])"
_PLAIN_WORD = rf"(?:{_FAKE}|{_REAL})(?![\w'-])"
_IMAGE = (
    r"(?:image|picture|photo|photograph|shot|snapshot|frame|video|one|face|person|human|man|woman|portrait|selfie|scan"
    r"|scene|document|page|newspaper|magazine|article|paper|map|view)"
)
# What may follow the verdict word: the end, punctuation, a word for the image, or a word that starts something new.
_NOUN = rf"(?:\s+[\w'-]+){{0,2}}?\s+{_IMAGE}(?:'s)?(?![\w-])"
_NEXT = (
    r"\s+(?:and|or|but|because|as|since|due|with|in|to|by|from|overall|at|rather|than|for|that|which|not|on|based|given"
    r"|when|using|instead|so|through|while|though|although)\b"
)
_AFTER = rf"(?=\s*$|\s*[^\w\s'-]|{_NOUN}|{_NEXT})"
_BE = r"(?:is|isn't|was|wasn't|are|aren't|were|be|been|being|as|say)(?!\w)"
_LOOK = r"(?:looks?|looked|appears?|appeared|seems?|seemed|feels?)(?!\w)"
_COPULA = re.compile(rf"(?<![\w-])(?:{_BE}|{_LOOK})|(?<=\w)'(?:s|re)(?!\w)")
# Words between copula and verdict word. A preposition would start another noun phrase ("is a photo of a real cat").
_FILL = (
    r"(?:,?\s+(?:far from|anything but"
    r"|(?!(?:of|with|in|on|at|by|from|for|that|which|who|taken|showing|containing)\b)[\w'%-]+)){0,6}?"
)
_CLAIM = re.compile(rf"^(?P<subject>.*?)(?:{_COPULA.pattern})(?P<fill>{_FILL}),?\s+(?P<word>{_WORD}){_AFTER}")
_LEAD = r"(?:(?:my|the|final)\s+)*(?:yes|no|answer|verdict|conclusion|prediction|label|result)(?:\s+is)?\b\W*"
_OPENING = re.compile(
    rf"^\W*(?:{_LEAD})*(?P<fill>(?:(?:not|definitely|clearly|most|likely|probably|certainly|an?|the)\s+)*)(?P<word>{_WORD})"
    rf"(?=\W*$|\s*[^\w\s'-]|(?:{_NOUN})?(?:\s*$|\s*[^\w\s'-]|\s+(?:because|as|since|due|of|with)\b))"
)
_OR = r"\s*(?:/|,? or|and|nor|vs\.?|versus)\s*(?:an? )?"
_PAIR = re.compile(rf"(?<![\w-])(?:(?:{_FAKE}){_OR}(?:{_REAL})|(?:{_REAL}){_OR}(?:{_FAKE}))(?!\w)")
_NOT = re.compile(
    r"\bnot\b(?! (?:only|just|merely))|n't\b|\b(?:cannot|never|neither|nor|hardly|unlikely|far from|anything but|nothing|than)\b"
)
_NOT_AFAR = re.compile(
    r"(?:\bnot|n't|\bcannot|\bnever)\s+(?:\w+\s+)?(?:think|believe|say|suggest|indicate|suspect|consider)\b"
    r"|\bno\s+(?:\w+\s+)?(?:evidence|signs?|indications?|reason|proof|hint|trace|way)\b"
    r"|\bnothing\b|\bnot the case\b|\bunlikely that\b|\btoo [\w-]+$"
)
_DOUBT = re.compile(
    r"\b(?:whether|if|as though|may|might|could|possibly|perhaps|maybe|either|necessarily|unsure|unclear|uncertain"
    r"|not sure|not certain|unable|impossible to|difficult to|hard to|to (?:look|appear|seem)"
    r"|(?:cannot|can't|can not) (?:be |really |definitively )*(?:determined?|tell|say|judged?|decided?|know|assess))\b"
)
# "Looks clear and authentic", "an unrealistic, fake image": one clause, the word shares the copula before it.
_SHARED = rf"(?!\s+(?:\w+ly\s+)?{_PLAIN_WORD}(?:{_NOUN})?\s*(?:$|[,;:.]))"
_CLAUSE = re.compile(
    rf"\s*(?:,{_SHARED}|[;:()–—]|--|\band\b{_SHARED}"
    r"|\b(?:(?<!anything )but|however|yet|although|though|because|since|while|so)\b)\s*"
)
_WHOLE = re.compile(rf"(?:^|\b(?:this|these|it|that|which|everything|(?:{_IMAGE})s?))\W*$")
# What may stand between the subject and the copula: auxiliaries, negation, adverbs, "appears to".
_AUXILIARY = re.compile(
    rf"(?:(?:^|\s+)(?:{_BE}|{_LOOK}|do|does|did|has|have|had|can|would|will|must|should|to|also|not|never|cannot"
    r"|more|most|far|\w+ly|\w+n't|classified|considered|described))*\s*$"
)
_ASIDE = re.compile(r", (?:in fact|indeed|actually|overall|therefore|however|most likely|in my opinion),")
_SENTENCE = re.compile(r"[.!?]+(?=[\s\"'*)]|$|[A-Z])|\n+")
_IDLE = re.compile(r"\W*(?:yes|no|sure|certainly|answer|verdict)?\W*")
_YES_NO = re.compile(r"\W*(yes|no)\b")


@dataclass(frozen=True)
class Claim:
    """A verdict found in a text.

    Attributes:
        verdict: fake or real.
        word: where the verdict word stands in the text (start, end), in characters.
        negated: the word is turned by a negation, so it says the opposite of the verdict.
        rank: 0 the image *is*, 1 the image *looks*, 2 a part of it is or looks.
    """

    verdict: Verdict
    word: tuple[int, int]
    negated: bool
    rank: int


def _plain(text: str) -> str:
    """Lower case without mark-up and quotation marks, character for character as long as the text."""
    text = "".join(c.lower() if len(c.lower()) == 1 else c for c in text.replace("’", "'"))
    text = re.sub(r"\ba\.i\.", "ai  ", text)
    return re.sub(r"[*_`#\"“”‘]|(?<!\w)'|'(?!\w)", " ", text)


def _sentences(text: str) -> list[tuple[int, str]]:
    """Start and plain words of the first two sentences that may claim something."""
    plain, found, start = _plain(text), [], 0
    # Capital letters end a sentence where the space was forgotten, hence the original text here.
    marked = re.sub(r"\b[Aa]\.[Ii]\.", "ai  ", text)
    for match in [*_SENTENCE.finditer(marked), None]:
        stop, mark = (match.start(), match.group()) if match else (len(text), "")
        if "?" not in mark and not _IDLE.fullmatch(plain[start:stop]):
            found.append((start, plain[start:stop]))
        start = match.end() if match else stop
    return found[:2]


def _clauses(sentence: str) -> Iterator[tuple[int, str]]:
    start = 0
    for match in _CLAUSE.finditer(sentence):
        yield start, sentence[start : match.start()]
        start = match.end()
    yield start, sentence[start:]


def _about_whole(subject: str, sentence: str) -> bool:
    """Whether a claim's subject is the image (or the person shown) and not a part of it."""
    subject = _AUXILIARY.sub("", subject)
    if not subject.strip():  # "…, and looks fake": the subject is that of the sentence
        copula = _COPULA.search(sentence)
        subject = _AUXILIARY.sub("", sentence[: copula.start()] if copula else sentence)
    head = re.split(r"(?<=\w)\s+(?:of|in|on|at|from)\b", subject)[0]
    head = re.sub(r"(?<=\w)\s+(?:that|which)\s*$", "", head)
    return bool(_WHOLE.search(head))


def _make(match: re.Match, start: int, negations: int, rank: int) -> Claim:
    word = "fake" if match["fake"] else "real"
    negated = negations % 2 == 1
    said: Verdict = ("real" if word == "fake" else "fake") if negated else word
    return Claim(said, (start + match.start("word"), start + match.end("word")), negated, rank)


def _claims(sentence: str, offset: int) -> Iterator[Claim]:
    for left_out in (_ASIDE, _PAIR):
        sentence = left_out.sub(lambda match: " " * len(match.group()), sentence)
    if (opening := _OPENING.match(sentence)) and not _DOUBT.search(opening.group()):
        yield _make(opening, offset, len(_NOT.findall(opening["fill"])), 0)
    for start, clause in _clauses(sentence):
        match = _CLAIM.match(clause)
        if not match or _DOUBT.search(clause[: match.end()]):
            continue
        # The match starts at the clause's first copula; the subject ends before the last ("I would say this is fake").
        before = clause[: match.start("word")]
        subject = before[: list(_COPULA.finditer(before))[-1].start()]
        stem = len(subject) - len(_AUXILIARY.search(subject).group())
        negations = len(_NOT.findall(before[stem:])) + len(_NOT_AFAR.findall(before[:stem]))
        looks = re.search(rf"\b(?:{_LOOK})\b", before[stem:])
        rank = (1 if looks else 0) if _about_whole(subject, sentence) else 2
        yield _make(match, offset + start, negations, rank)


def find(text: str) -> Claim | None:
    """The claim that decides the text's verdict (see the module's rules), None where there is none."""
    claims = [list(_claims(sentence, start)) for start, sentence in _sentences(text)]
    for rank in (0, 1), (2,):
        for found in claims:
            ranked = sorted((c for c in found if c.rank in rank), key=lambda c: c.rank)
            best = [c for c in ranked if c.rank == ranked[0].rank]
            if len({c.verdict for c in best}) == 1:
                return best[0]
    return None


def parse(text: str, question: str | None = None) -> Verdict:
    """The verdict that a text gives.

    Args:
        text: what a model answered.
        question: what it was asked; only needed where it may answer with a bare "Yes" or "No".

    Returns:
        `fake`, `real`, or `unparsed` (which every metric counts as wrong).
    """
    claim = find(text)
    if claim:
        return claim.verdict
    answer = _YES_NO.match(_plain(text))
    asked = {
        "fake" if m["fake"] else "real" for m in re.finditer(rf"(?<![\w-]){_WORD}", _plain(question or ""))
    }
    if not answer or len(asked) != 1:
        return "unparsed"
    asked_fake = asked == {"fake"}
    return "fake" if asked_fake == (answer[1] == "yes") else "real"


def locate(token_ids: Sequence[int], tokenizer: Any) -> tuple[Claim, int] | None:
    """The deciding claim of a generated text and the index of the token in which its word begins; None without a claim.

    Args:
        token_ids: the generated tokens, without the prompt; special tokens are skipped, as in the text.
        tokenizer: the model's tokenizer.
    """
    ids = [int(i) for i in token_ids]
    claim = find(tokenizer.decode(ids, skip_special_tokens=True))
    if claim is None:
        return None
    # Bisection over decoded prefixes: token by token, byte-level and sentence-piece tokenizers lose spaces.
    low, high = 0, len(ids) - 1
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer.decode(ids[: middle + 1], skip_special_tokens=True)) > claim.word[0]:
            high = middle
        else:
            low = middle + 1
    return claim, low


def verdict_position(token_ids: Sequence[int], tokenizer: Any) -> int | None:
    """Index of the generated token in which the verdict word begins, None where the text claims nothing."""
    found = locate(token_ids, tokenizer)
    return found[1] if found else None


def p_fake(gap: float, negated: bool = False) -> float:
    """P(fake) at the verdict's place: the softmax over the word "fake" against the word "real".

    Args:
        gap: log-sum-exp of the logits of `word_ids`' fake ids minus that of its real ids, at that place.
        negated: the word stands under a negation ("is not …"), where the likelier word is the verdict's opposite.
    """
    return float(expit(round(-gap if negated else gap, DIGITS)))


def settled(p_fake: np.ndarray) -> np.ndarray:
    """Other models' P(fake), (n,) float64, rounded as `p_fake` rounds: in its log-odds."""
    with np.errstate(divide="ignore"):
        return expit(np.round(logit(p_fake), DIGITS))


def word_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids that begin the words "fake" and "real", each in its spellings (" fake", "Fake", …).

    A spelling counts if it is a single token for one of the words; where it is for one alone, the other's first piece stands
    for it (LLaMA has " Real" as one token, " Fake" as " F" and "ake"). If there is no such spelling, the first pieces of the
    words after a space stand for them. Ids that would begin both words are left out.

    Raises:
        ValueError: the two words begin alike in every spelling.
    """
    fake: set[int] = set()
    real: set[int] = set()
    forms = (str.lower, str.capitalize, str.upper)
    spellings = [(form("fake"), form("real")) for form in forms]
    spellings = [(space + one, space + other) for one, other in spellings for space in (" ", "")]
    for pair in spellings:
        one, other = (_pieces(tokenizer, spelling) for spelling in pair)
        if min(len(one), len(other)) == 1:
            fake.add(one[0])
            real.add(other[0])
    if not fake:
        fake, real = ({_pieces(tokenizer, spelling)[0]} for spelling in spellings[0])
    if not fake - real or not real - fake:
        raise ValueError(
            "the tokenizer begins 'fake' and 'real' with the same token: P(fake) cannot be read from one token"
        )
    return sorted(fake - real), sorted(real - fake)


def _pieces(tokenizer: Any, spelling: str) -> list[int]:
    ids = tokenizer.encode(spelling, add_special_tokens=False)
    # Sentence-piece tokenizers write a lone space piece before " fake"; it says nothing.
    return [i for i in ids if tokenizer.decode([i]).strip()]
