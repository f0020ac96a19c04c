"""`python -m services.box up`: the box's own commands, without the rest of `oiab`."""

from services.box.commands import app

if __name__ == "__main__":
    app(prog_name="oiab")
