"""Screening of prompts before work. Pictures, given and drawn, are `pipeline.picture_safety`'s.

A policy is an object with two checks (words alone, the prompt); each gives a `Verdict`, and the one on the
prompt goes into the report. The default policy works offline: folded word lists,
then the similarity of the prompt's sentence embedding (MiniLM, the model's own text encoder) to
blocked concepts against that to allowed ones that sound alike. The words alone (`screen_words`) need
no weights and no torch: who queues work asks them first, and the whole policy runs before the views
are drawn. `bench/safety.py` measures its error rates on a labelled list that shares no sentence with
the concepts.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import yaml

from pipeline.resources import resource_directory
from render.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.multiview.text import TextEncoder

MARGIN = 0.08
"""How much nearer to a blocked concept than to any allowed one a refused prompt is (cosine)."""
SIMILARITY = 0.45
"""How near to a blocked concept a refused prompt is at least (cosine)."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check."""

    allowed: bool
    policy: str
    category: str | None = None
    """What a refusal is about: sexual, minors, hate, gore, self_harm, weapon_making; of pictures also
    known_picture, or what a policy of the user's own says."""
    reason: str = ""
    score: float = 0.0
    """How sure the policy is that this belongs to `category`; 0 to 1, comparable within a policy."""
    screened: bool = True
    """False: the policy has no means to judge this, and says so."""
    subject: Literal["prompt", "picture", "views", "asset"] = "prompt"
    """What was looked at; see `pipeline.picture_safety.Origin`."""


class SafetyPolicy(Protocol):
    """Decides what is made."""

    name: str

    def screen_words(self, text: str) -> Verdict:
        """Before the request is queued: what can be said of the prompt at once, without weights. A pass
        says nothing; `screen_prompt` follows."""
        ...

    def screen_prompt(self, text: str) -> Verdict:
        """Before work: the prompt's words. The negative prompt is not screened: it asks for absence."""
        ...


class RefusedError(InputError):
    """A request that the safety policy refuses."""

    def __init__(self, verdict: Verdict) -> None:
        said = f"Refused by the safety policy {verdict.policy!r} ({verdict.category}): "
        match verdict.subject:
            case "prompt":
                said += f"{verdict.reason}. If that is wrong, say it in other words."
            case "picture":
                said += f"{verdict.reason}. Give another picture."
            case _:
                said += f"what was made was screened; {verdict.reason}. Another prompt or seed may pass."
        super().__init__(said)
        self.verdict = verdict

    def __reduce__(self) -> tuple[type[RefusedError], tuple[Verdict]]:
        return RefusedError, (self.verdict,)


_LOOKALIKES = str.maketrans("013457@$!|", "oieastasil")


def folded(text: str) -> str:
    """Lower case without accents; digits and signs that stand for letters replaced; spaced letters joined."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in decomposed if not unicodedata.combining(c))
    words = []
    for word in re.split(r"[\s,;:()\"]+", plain):
        # "3d" and "100" stay: only words of letters and signs are read as disguised.
        if re.search(r"[a-z]", word) and not re.fullmatch(r"\d+[a-z]{1,2}|[a-z]{1,3}\d+", word):
            word = word.translate(_LOOKALIKES)
        words.append(word)
    joined = " ".join(words)
    # "p o r n", "p.o.r.n" and "p-o-r-n" are one word.
    joined = re.sub(r"\b(?:[a-z][ .\-_*]){2,}[a-z]\b", lambda m: re.sub(r"[^a-z]", "", m.group()), joined)
    return re.sub(r"[^a-z0-9]+", " ", joined).strip()


_ARTICLE = re.compile(r"\ba\s+(?=[a-z0-9][\s.\-_*][a-z0-9]\b)", re.IGNORECASE)
"""Before letters that are spaced."""
EMBEDDINGS = "concepts.safetensors"


def _folder() -> Path:
    return resource_directory("assets") / "safety"


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


@cache
def _concepts_file() -> dict[str, Any]:
    """What the offline policy knows. It ships with the code: read once."""
    data: dict[str, Any] = yaml.safe_load((_folder() / "concepts.yaml").read_text(encoding="utf-8"))
    return data


@cache
def _word_patterns() -> dict[str, re.Pattern[str]]:
    """The words of each category, folded."""
    return {
        category: re.compile(rf"\b({'|'.join(re.escape(folded(word)) for word in words)})\b")
        for category, words in _concepts_file()["words"].items()
    }


class OfflinePolicy:
    """Word lists and MiniLM similarity; needs no network and no weights of its own."""

    name = "offline-1"

    def __init__(self, encoder: TextEncoder | None = None) -> None:
        self._encoder = encoder
        data = _concepts_file()
        self._blocked = [(category, text) for category, texts in data["blocked"].items() for text in texts]
        self._allowed: list[str] = data["allowed"]

    @cached_property
    def _text_encoder(self) -> TextEncoder:
        if self._encoder is None:
            from pipeline.multiview.text import TextEncoder

            self._encoder = TextEncoder()
        return self._encoder

    @cached_property
    def _concepts(self) -> Tensor:
        """Embeddings of blocked, then allowed concepts: those kept beside them, if of this list."""
        from safetensors.torch import load_file

        texts = [text for _, text in self._blocked] + self._allowed
        kept = _folder() / EMBEDDINGS
        if kept.is_file():
            embeddings = load_file(kept).get(_digest(texts))
            if embeddings is not None:
                return embeddings.float()
        return self._text_encoder.sentences(texts)

    def save_embeddings(self) -> None:
        """Keep the embeddings of the concepts beside them; a run then need not compute them."""
        from safetensors.torch import save_file

        texts = [text for _, text in self._blocked] + self._allowed
        save_file({_digest(texts): self._text_encoder.sentences(texts).half()}, _folder() / EMBEDDINGS)

    def screen_words(self, text: str) -> Verdict:
        """The word lists."""
        # Of "a p o r n figurine" folding makes one word, "aporn"; of "a n a l" it must. Both are read.
        plain = f"{folded(text)} / {folded(_ARTICLE.sub(' ', text))}"
        for category, pattern in _word_patterns().items():
            found = pattern.search(plain)
            if found:
                return Verdict(False, self.name, category, f"the word {found.group()!r}", 1.0)
        return Verdict(True, self.name)

    def screen_prompt(self, text: str) -> Verdict:
        """Words first, since they cost nothing; then meaning."""
        words = self.screen_words(text)
        if not words.allowed or not folded(text):
            return words
        similarity = self._concepts @ self._text_encoder.sentences([text])[0]
        blocked, allowed = similarity[: len(self._blocked)], similarity[len(self._blocked) :]
        nearest = int(blocked.argmax())
        score, margin = float(blocked[nearest]), float(blocked[nearest] - allowed.max())
        category, example = self._blocked[nearest]
        if score >= SIMILARITY and margin >= MARGIN:
            return Verdict(False, self.name, category, f"it is close to {example!r}", score)
        return Verdict(True, self.name, score=max(0.0, score))


class NoPolicy:
    """Lets everything pass and says so; for users who screen elsewhere."""

    name = "none"

    def screen_words(self, text: str) -> Verdict:
        """Not screened."""
        return Verdict(True, self.name, screened=False)

    def screen_prompt(self, text: str) -> Verdict:
        """Not screened."""
        return Verdict(True, self.name, screened=False)


POLICIES: dict[str, Callable[[], SafetyPolicy]] = {"offline": OfflinePolicy, "none": NoPolicy}
"""Makers of policies by the name that a preset gives them (`views.safety`)."""


def screen(policy: str, text: str) -> Verdict:
    """The verdict of a named policy on a prompt that passes; `RefusedError` on one that does not."""
    return require(POLICIES[policy]().screen_prompt(text))


def screen_words(policy: str, text: str) -> Verdict:
    """What a named policy says of a prompt's words, before the request is queued; `RefusedError` when it
    refuses."""
    return require(POLICIES[policy]().screen_words(text))


def require(verdict: Verdict) -> Verdict:
    """The verdict, or `RefusedError`."""
    if not verdict.allowed:
        raise RefusedError(verdict)
    return verdict
