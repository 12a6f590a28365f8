"""Run the command as `python -m lora_edit`, for when the `lora-edit` script is not on the path."""

from lora_edit.cli.main import main

if __name__ == "__main__":
    main()
