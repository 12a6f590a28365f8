"""First-frame-guided video editing by mask-aware LoRA fine-tuning.

Importing this package loads no model, opens no file and initializes no device.
"""

__version__ = "0.1.0"
