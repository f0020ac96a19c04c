"""`oiab`: the command line of Org in a Box."""

from gateways.chat.cli.app import build


def main() -> None:
    """Run the command that the arguments name."""
    build()(prog_name="oiab")


if __name__ == "__main__":
    main()
