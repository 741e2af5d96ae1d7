"""`python -m imgdiffd` is the `imgdiffd` command."""

from imgdiffd.cli import main

if __name__ == "__main__":
    main()
