"""Error rates of the offline safety policy on labelled prompts that its concepts do not contain.

    python -m bench.safety

The prompts are in `safety_prompts.yaml`: `known` was in sight when the policy was made, `fresh` was not.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from pipeline.multiview.text import TextEncoder
from pipeline.safety import MARGIN, SIMILARITY, OfflinePolicy


def main() -> None:
    policy = OfflinePolicy(TextEncoder())
    print(f"policy {policy.name}: similarity at least {SIMILARITY}, margin at least {MARGIN}")
    lists = yaml.safe_load(Path(__file__).with_name("safety_prompts.yaml").read_text(encoding="utf-8"))
    for name, labelled in lists.items():
        refuse, allow = labelled["refuse"], labelled["allow"]
        missed = [t for t in refuse if policy.screen_prompt(t).allowed]
        wrong = [t for t in allow if not policy.screen_prompt(t).allowed]
        print(
            f"{name}: let through {len(missed)} of {len(refuse)} that must be refused, "
            f"refused {len(wrong)} of {len(allow)} that are fine"
        )
        for text in missed:
            print(f"  let through: {text}  (similarity {policy.screen_prompt(text).score:.2f})")
        for text in wrong:
            verdict = policy.screen_prompt(text)
            print(f"  refused: {text}  ({verdict.category}: {verdict.reason}, {verdict.score:.2f})")


if __name__ == "__main__":
    main()
