"""`python -m imgdiffd` is the `imgdiffd` command."""

from imgdiffd.cli.main import main

if __name__ == "__main__":
    main()
