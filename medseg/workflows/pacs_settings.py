"""The settings of ``medseg pacs``: the archive, what is fetched and sent, and what a listener may do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medseg.core.values import Value
from medseg.imaging.dicom_door import Gate
from medseg.imaging.dicom_net import Peer
from medseg.imaging.dicom_tls import Tls
from medseg.workflows.settings import PredictSettings


class Pulling(Value):
    """How objects are fetched."""

    method: Literal["get", "move", "web"] = "get"
    """C-GET; C-MOVE to a receiving end that is open for as long as it takes; or DICOMweb (QIDO, WADO)."""
    move_host: str = "0.0.0.0"
    """For ``move``: the address to receive on ..."""
    move_port: int = Field(default=11112, ge=1, le=65535)
    """... and the port, both as the archive has them on its list for our AE title."""
    move_tls: Tls | None = None
    max_object_mb: float = Field(default=2048.0, gt=0)
    max_pull_gb: float = Field(default=100.0, gt=0)
    """The most one call may bring; what is there stays, and the same call goes on."""


class Pushing(Value):
    """How objects are sent."""

    method: Literal["store", "web"] = "store"
    """C-STORE, or DICOMweb (STOW)."""


class Listening(Gate):
    """Who may send studies to us, what is done with them, and where results go."""

    ae_title: str = ""
    """Ours; empty: that of `pacs`."""
    quiet_seconds: float = Field(default=30.0, ge=0)
    """A study is complete when nothing of it has come for so long after the association that brought it."""
    broken_seconds: float = Field(default=300.0, ge=0)
    """The same after an association that was cut off, or after a restart: the sender will try again."""
    predict: str = "medseg"
    """Who predicts: medseg's models, or ``package.module:function`` (see docs/pacs.md)."""
    to: Peer | None = None
    """Where results go; by default to `pacs`."""
    send: Literal["store", "web", "nowhere"] = "store"
    retry_hours: float = Field(default=24.0, ge=0)
    """How long results are offered, with growing pauses, to an archive that does not take them."""
    max_spool_gb: float = Field(default=100.0, gt=0)
    min_free_gb: float = Field(default=1.0, ge=0)
    """Room left on the disk; below it objects are refused."""
    max_study_objects: int = Field(default=20000, ge=1)
    max_attempts: int = Field(default=3, ge=1)
    """A study whose prediction ended the whole program so often is set aside."""
    clean_after_hours: float | None = Field(default=72.0, ge=0)
    """Finished studies leave the spool after this; null keeps them. Failed ones always stay."""
    retry_failed: bool = False
    """Take up failed studies again at the start."""


class PacsSettings(Value):
    """``medseg pacs``: one file for all its actions."""

    name: str = Field(default="pacs", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    pacs: Peer = Peer()
    query: dict[str, str] = {}
    """What to pull; keys given on the command line win."""
    pull: Pulling = Pulling()
    push: Pushing = Pushing()
    listen: Listening = Listening()
    predicting: PredictSettings = PredictSettings()
    """How a listener predicts and writes, as for ``medseg predict``."""

    def gate(self) -> Gate:
        """Who may come in when listening."""
        fields = {key: getattr(self.listen, key) for key in Gate.model_fields}
        return Gate(**{**fields, "ae_title": self.listen.ae_title or self.pacs.ae_title})

    def moving_gate(self) -> Gate:
        """Who may come in while the archive moves objects to us: that archive."""
        return Gate(
            ae_title=self.pacs.ae_title,
            host=self.pull.move_host,
            port=self.pull.move_port,
            tls=self.pull.move_tls,
            callers=(self.pacs.called_ae,),
            peers=self.pacs.addresses(),
            max_object_mb=self.pull.max_object_mb,
            timeout_seconds=self.pacs.timeout_seconds,
        )
