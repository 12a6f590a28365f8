"""`python -m lora_edit`, where the command itself is not on the path."""

from lora_edit.cli.main import main

if __name__ == "__main__":
    main()
