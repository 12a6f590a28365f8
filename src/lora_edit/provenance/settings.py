"""Settings of provenance: the signed manifest and the watermark of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lora_edit.setting_fields import Flag


class ProvenanceSettings(BaseModel):
    """How results say that they are edited and by what (docs/provenance.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sign: Annotated[bool, Flag("--no-sign", "", "Write the result without a signed manifest")] = Field(
        True, description="put a signed C2PA manifest into each result, or beside it where the format holds none"
    )
    certificate: Annotated[Path | None, Flag("--sign-cert", "FILE.pem", "Certificate chain to sign with", Path)] = Field(
        None, description="certificate chain (PEM, the signer's first); default: LORA_EDIT_SIGN_CERT, else a local self-signed one"
    )
    key: Annotated[Path | None, Flag("--sign-key", "FILE.pem", "Private key of that certificate", Path)] = Field(
        None, description="private key of the certificate (PEM, no password); default: LORA_EDIT_SIGN_KEY"
    )
    timestamp_url: str | None = Field(
        None, description="time-stamp authority (RFC 3161) to ask for a time stamp; default: LORA_EDIT_TIMESTAMP_URL, else none"
    )
    watermark: bool = Field(True, description="mark the edited region imperceptibly, where it is large enough")
