"""The home folder: its places, its secrets, and what it refuses."""

import os
import stat
from pathlib import Path

import pytest

from services.box.home import LONGEST_SOCKET, ROOM_BELOW_RUN, Home, HomeBusy, HomeRefused, own_folder


def home_in(folder: Path) -> Home:
    """A home below the folder, its run folder too."""
    return Home(folder / "home", folder / "home" / "run")


def test_the_environment_names_the_home() -> None:
    assert Home.locate({"OIAB_HOME": "/srv/box"}).root == Path("/srv/box")
    assert Home.locate({"OIAB_HOME": "/srv/box"}).run == Path("/srv/box/run")
    assert Home.locate({}).root == Path.home() / ".orginabox"
    assert Home.locate({"OIAB_HOME": ""}).root == Path.home() / ".orginabox"


def test_sockets_of_a_long_home_have_short_paths() -> None:
    home = Home.locate({"OIAB_HOME": f"/srv/{'long/' * 30}"})
    assert len(os.fsencode(home.run)) + ROOM_BELOW_RUN <= LONGEST_SOCKET
    assert home.run == Home.locate({"OIAB_HOME": str(home.root)}).run
    assert home.run != Home.locate({"OIAB_HOME": f"{home.root}x"}).run


def test_a_run_folder_outside_goes_with_the_run(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path / "run")
    home.create()
    home.state_file.touch()
    home.leave()
    home.leave()
    assert not home.run.exists()
    assert not home.state_file.exists()
    assert home.secrets.exists()
    inside = home_in(tmp_path)
    inside.create()
    inside.leave()
    assert inside.run.exists()


def test_every_folder_is_its_owners(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    home.create()
    home.create()
    for folder in (home.root, home.run, home.logs, home.secrets, home.envoy, home.model_folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_open_folder_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    own_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeRefused, match="OIAB_HOME"):
        own_folder(tmp_path / "file")
    with pytest.raises(HomeRefused, match="OIAB_HOME"):
        own_folder(tmp_path / "file" / "below")
    (tmp_path / "link").symlink_to("/nowhere")
    with pytest.raises(HomeRefused):
        own_folder(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder somebody else's")
def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    with pytest.raises(HomeRefused, match="another user"):
        own_folder(theirs)


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    home.create()
    first = home.secret("api_key")
    assert len(first) >= 32
    assert home.secret("api_key") == first
    assert home.secret("other") != first
    assert stat.S_IMODE((home.secrets / "api_key").stat().st_mode) == 0o600
    assert sorted(path.name for path in home.secrets.iterdir()) == ["api_key", "other"]


def test_a_set_key_wins(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    home.create()
    generated = home.api_key({})
    assert generated == home.secret("api_key")
    home.settings_file.write_text("ORGINABOX_API_KEY=from-the-file\n")
    assert home.api_key({}) == "from-the-file"
    assert home.api_key({"ORGINABOX_API_KEY": "from-outside"}) == "from-outside"


def test_a_home_has_one_supervisor(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    home.create()
    with home.lock(), pytest.raises(HomeBusy), home.lock():
        pass
    with home.lock():
        pass
