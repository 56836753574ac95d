"""Pushing: the timm model of an export to the Hugging Face hub, through timm's own function, as safetensors alone."""

from __future__ import annotations

from pathlib import Path

from nas.core.errors import InputError
from nas.exporting.card import card
from nas.exporting.folder import verify
from nas.exporting.subject import Subject
from nas.exporting.targets.timm import model_of


def push(subject: Subject, folder: Path, repository: str) -> str:
    """Create the repository where need be and upload weights, configuration and a card; its address.

    Needs the network and whoever pushes to be logged in (`hf auth login`). The licence is said to be unknown.
    """
    import timm

    problems = verify(folder)
    if problems:
        raise InputError("only a sound export is pushed", problems[0], str(folder))
    model, args = model_of(subject)
    about = {"license": "unknown", "tags": ["image-classification", "timm"], "description": card(subject, {})}
    try:
        done = timm.models.push_to_hf_hub(model, repository, model_args=args, model_card=about, safe_serialization=True)
    except Exception as error:  # the hub and the network raise what they like
        first = next(iter(str(error).splitlines()), "")
        raise InputError(f"it cannot be pushed ({type(error).__name__}: {first[:200]})", repository) from error
    return str(done or repository)
