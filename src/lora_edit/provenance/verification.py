"""Verification of a file's manifest: does it hold, who signed it, and what does it claim."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from lora_edit.errors import VideoError
from lora_edit.provenance.certificate import find_config_folder, read_local_certificate, shorten_reason
from lora_edit.provenance.claim import EDIT_LABEL
from lora_edit.provenance.content_hash import hash_source, list_folder_hashes
from lora_edit.provenance.library import EMBEDDED_TYPES, GENERIC_TYPE, LibraryError, ReadManifest, find_media_type, read_manifest
from lora_edit.provenance.signing import SIDECAR_SUFFIX, sidecar_path

State = Literal["valid", "invalid", "absent"]

UNTRUSTED = "signingCredential.untrusted"
"""The library's code for a signer on no list of trusted certificates: no fault of the manifest."""

SELF_SIGNED_MEANING = (
    "self-signed: anyone can make such a certificate; it shows that the file is unchanged since it was signed, not who signed it"
)
OWN_MEANING = "self-signed on this computer, with the certificate that it still holds: signed here, and unchanged since"
ISSUED_MEANING = "issued by {issuer}, which is not checked against any list of trusted authorities"
TRUSTED_MEANING = "issued by {issuer}, or the very certificate, that you gave as trusted"

FAULTS = (
    (
        ("dataHash", "bmffHash", "boxesHash", "collectionHash"),
        "the file was changed after it was signed: its bytes do not match the manifest",
    ),
    (("claimSignature", "hashedURI", "claim.", "assertion."), "the manifest was changed after it was signed"),
    (("signingCredential.expired", "outsideValidity"), "the certificate was not in force when the file was signed"),
    (("signingCredential",), "the signer's certificate is not of a kind that may sign"),
    (("timeStamp",), "the time stamp does not hold"),
)
"""Parts of the library's codes, and what they mean; the first match counts."""


@dataclass(frozen=True)
class Signer:
    """Who signed: names in the certificate, its serial number, its last day, and what the signature is worth."""

    name: str
    issuer: str
    serial_number: str
    valid_until: str
    is_self_signed: bool
    is_trusted: bool
    meaning: str


@dataclass(frozen=True)
class ClaimedIngredient:
    """An input as the manifest names it.

    `manifest` says whether it carried one itself: `none`, `valid`, or `invalid`. `matches` is whether a file that was given for comparison
    has its hash; None where none was given.
    """

    name: str
    relationship: str
    sha256: str | None
    manifest: Literal["none", "valid", "invalid"]
    manifest_tool: str | None = None
    matches: bool | None = None


@dataclass(frozen=True)
class VerificationReport:
    """What a file's manifest claims and whether it holds.

    `reason` is one plain line. `manifest` is the file that holds it. `edit` is this tool's own record (`claim.build_edit_record`), None
    for files of other tools; `actions` are the C2PA actions. `watermark` is what
    `watermark_search.search_watermark` returns; None where nobody looked for one.
    """

    file: Path
    state: State
    reason: str
    manifest: Path | None = None
    signer: Signer | None = None
    time_stamp: str | None = None
    tool: str | None = None
    actions: tuple[str, ...] = ()
    is_ai_edited: bool = False
    source: ClaimedIngredient | None = None
    other_inputs: tuple[ClaimedIngredient, ...] = ()
    edit: dict[str, Any] | None = None
    failures: tuple[str, ...] = ()
    watermark: dict[str, Any] | None = None

    @property
    def is_valid(self) -> bool:
        """Whether the manifest holds, and a source given for comparison is the claimed one."""
        return self.state == "valid"

    def to_json(self) -> dict[str, Any]:
        """Return the record that `verify --json` prints."""
        return asdict(self) | {"is_valid": self.is_valid}


def verify_file(path: Path, source: Path | None = None, trusted: Path | None = None) -> VerificationReport:
    """Read and check the manifest of a file, a folder of frames, or a run folder's result, in the file or in a sidecar beside it.

    `source` is a file to compare with the claimed source; `trusted` a certificate (PEM) of a signer or an authority that you trust.
    Raises `VideoError` for a file that cannot be read.
    """
    path = path / "result.mp4" if (path / "edit.toml").is_file() else path
    try:
        own, given = read_local_certificate(find_config_folder()), trusted.read_text("utf-8") if trusted else None
        manifest, place = _find_manifest(path, "\n".join(filter(None, (own, given))) or None)
        source_hash = hash_source(source) if source else None
    except LibraryError as error:
        return VerificationReport(path, "invalid", f"the file or its manifest is damaged and cannot be read ({shorten_reason(error)})")
    except (OSError, UnicodeDecodeError) as error:
        fault = error.strerror if isinstance(error, OSError) else "not a text"
        name = getattr(error, "filename", None) or path
        raise VideoError(f"{name}: cannot be read ({fault}); give a file or folder that exists") from error
    if manifest is None:
        return VerificationReport(path, "absent", "no manifest, so nothing is known of its origin; re-encoding removes one")
    return _compare_source(_build_report(path, place, manifest, given is not None), source, source_hash)


def _find_manifest(path: Path, trusted: str | None) -> tuple[ReadManifest | None, Path]:
    """Read the manifest in the file, else in its sidecar: `NAME.EXT.c2pa`, or `NAME.c2pa` as other tools name it."""
    if path.is_dir():
        sidecar = sidecar_path(path)
        if not sidecar.is_file():
            return None, path
        listing = io.BytesIO(list_folder_hashes(path))
        return read_manifest(listing, GENERIC_TYPE, sidecar.read_bytes(), trusted), sidecar
    with path.open("rb") as file:
        if embedded := _read_embedded(file, path, trusted):
            return embedded, path
        real = path.resolve()  # a result is written through a link, and its sidecar beside the file itself
        for sidecar in (sidecar_path(path), path.with_suffix(SIDECAR_SUFFIX), sidecar_path(real), real.with_suffix(SIDECAR_SUFFIX)):
            if sidecar.is_file() and sidecar != path:
                file.seek(0)
                return read_manifest(file, GENERIC_TYPE, sidecar.read_bytes(), trusted), sidecar
    return None, path


def _read_embedded(file: IO[bytes], path: Path, trusted: str | None) -> ReadManifest | None:
    media_type = find_media_type(path)
    if path.suffix.lower() in EMBEDDED_TYPES:
        return read_manifest(file, media_type, None, trusted)
    with suppress(LibraryError):  # not a media file at all, or of a type that holds no manifest
        return read_manifest(file, media_type, None, trusted)
    return None


def _build_report(path: Path, place: Path, manifest: ReadManifest, has_trusted: bool) -> VerificationReport:
    active = manifest.active
    labelled = {str(each.get("label")): each.get("data") for each in active.get("assertions", [])}
    assertions = {label: data for label, data in labelled.items() if isinstance(data, dict)}
    edit = assertions.get(EDIT_LABEL)
    actions = [each for label, data in assertions.items() if label.startswith("c2pa.actions") for each in data.get("actions", [])]
    hashes = _read_hashes(edit or {})
    inputs = [_read_ingredient(each, hashes, manifest.store) for each in active.get("ingredients", [])]
    source = next((each for each in inputs if each.relationship == "parentOf"), None)
    failures = _list_failures(manifest.store)
    is_valid = manifest.state != "Invalid"
    return VerificationReport(
        path,
        "valid" if is_valid else "invalid",
        "the file is unchanged since it was signed" if is_valid else explain_failures(failures),
        manifest=place,
        signer=_read_signer(manifest, has_trusted),
        time_stamp=active.get("signature_info", {}).get("time"),
        tool=_format_tool(active),
        actions=tuple(str(each.get("action")) for each in actions),
        is_ai_edited=any("rainedAlgorithmic" in str(each.get("digitalSourceType")) for each in actions),
        source=source,
        other_inputs=tuple(each for each in inputs if each is not source),
        edit=edit,
        failures=failures,
    )


def _read_hashes(edit: Mapping[str, Any]) -> dict[str, str]:
    """Read the hashes of the inputs, by name, from this tool's own record, which anyone may have written."""
    files = edit.get("files")
    records = [each for each in files if isinstance(each, dict)] if isinstance(files, list) else []
    return {str(each.get("name")): str(each.get("sha256")) for each in records}


def _list_failures(store: Mapping[str, Any]) -> tuple[str, ...]:
    failures = store.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    return tuple(dict.fromkeys(each["code"] for each in failures if each.get("code") != UNTRUSTED))


def explain_failures(codes: tuple[str, ...]) -> str:
    """Explain the library's codes in one plain line."""
    for parts, meaning in FAULTS:
        if any(part in code for code in codes for part in parts):
            return meaning
    return f"the manifest does not hold ({', '.join(codes) or 'no reason given'})"


def _format_tool(manifest: Mapping[str, Any]) -> str | None:
    tools = manifest.get("claim_generator_info") or [{}]
    return " ".join(filter(None, (tools[0].get("name"), tools[0].get("version")))) or manifest.get("claim_generator")


def _read_ingredient(ingredient: Mapping[str, Any], hashes: Mapping[str, str], store: Mapping[str, Any]) -> ClaimedIngredient:
    name, label = str(ingredient.get("title", "")), ingredient.get("active_manifest")
    validation = ingredient.get("validation_results", {}).get("activeManifest", {})
    has_failed = any(each.get("code") != UNTRUSTED for each in validation.get("failure", []))
    manifest: Literal["none", "valid", "invalid"] = "none" if not label else "invalid" if has_failed else "valid"
    own = store.get("manifests", {}).get(label, {})
    return ClaimedIngredient(name, str(ingredient.get("relationship")), hashes.get(name), manifest, _format_tool(own) if label else None)


def _read_signer(manifest: ReadManifest, has_trusted: bool) -> Signer | None:
    """Read the signer of the active manifest from crJSON, which lists it first."""
    label = manifest.store.get("active_manifest")
    record: Mapping[str, Any] = next((each for each in manifest.details.get("manifests", []) if each.get("label") == label), {})
    info = record.get("signature", {}).get("certificateInfo")
    if info is None:
        return None
    subject, issuer = _format_name(info.get("subject", {})), _format_name(info.get("issuer", {}))
    is_self_signed, is_trusted = info.get("subject") == info.get("issuer"), manifest.state == "Trusted"
    if is_self_signed:
        meaning = SELF_SIGNED_MEANING if not is_trusted else TRUSTED_MEANING.format(issuer=issuer) if has_trusted else OWN_MEANING
    else:
        meaning = (TRUSTED_MEANING if is_trusted else ISSUED_MEANING).format(issuer=issuer)
    until = str(info.get("validity", {}).get("notAfter", ""))[:10]
    return Signer(subject, issuer, str(info.get("serialNumber", "")), until, is_self_signed, is_trusted, meaning)


def _format_name(name: Mapping[str, str]) -> str:
    return ", ".join(str(name[key]) for key in ("CN", "O") if name.get(key)) or "a signer without a name"


def _compare_source(report: VerificationReport, source: Path | None, source_hash: str | None) -> VerificationReport:
    """Compare the hash of a given file with that of the claimed source."""
    if source is None or not report.is_valid:
        return report
    if report.source is None or report.source.sha256 is None:
        return replace(report, state="invalid", reason="the manifest names no source with a hash to compare with")
    matches = report.source.sha256 == source_hash
    report = replace(report, source=replace(report.source, matches=matches))
    if matches:
        return report
    return replace(report, state="invalid", reason=f"the manifest holds, but its source is another file than {source}")
