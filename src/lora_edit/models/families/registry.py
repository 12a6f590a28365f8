"""The models of this version: the records of all families, in the order in which they are listed.

Sizes of downloads are approximate: parameters times bytes. A new family adds its folder and one entry here.
"""

from __future__ import annotations

from lora_edit.models.families.embedded.record import EMBEDDED_MODELS
from lora_edit.models.families.hunyuan.record import HUNYUAN_MODELS
from lora_edit.models.families.ltx.record import LTX_MODELS
from lora_edit.models.families.wan.record import WAN_MODELS
from lora_edit.models.families.wan_ti2v.record import WAN_TI2V_MODELS

KNOWN_MODELS = (*EMBEDDED_MODELS, *WAN_MODELS, *WAN_TI2V_MODELS, *LTX_MODELS, *HUNYUAN_MODELS)
