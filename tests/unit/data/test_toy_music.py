"""Toy music: reproducible songs with musical structure."""

import hashlib
import io
import itertools

import joblib
import mido
import numpy as np
import pytest
import soundfile

from separation.data.sources import toy_music
from separation.data.sources.toy_songs import PROGRAMS, STEMS, compose
from separation.errors import UserError
from tiny_source import bytes_below

ARGS = {"seed": 3, "songs": {"train": 2, "test": 1}, "song_duration": 4.0, "sample_rate": 8000}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_worker")
    return folder, toy_music.build_toy_music(ARGS, folder, workers=1)


def test_songs_are_the_same_bytes_with_1_and_2_workers(built, tmp_path, monkeypatch):
    started = []
    parallel_of_joblib = joblib.Parallel

    def counted(**options):
        started.append(options["n_jobs"])
        return parallel_of_joblib(**options)

    monkeypatch.setattr(joblib, "Parallel", counted)
    monkeypatch.setattr(toy_music, "SONGS_PER_PROCESS", 1)
    result = toy_music.build_toy_music(ARGS, tmp_path, workers=2)
    assert started == [2]
    assert result == built[1]
    assert bytes_below(tmp_path, ".wav") == bytes_below(built[0], ".wav") != {}


def test_each_song_has_four_audible_stems_without_clipping(built):
    folder, result = built
    assert {entry["path"] for entry in result["files"]} == {
        f"{split}/{split}_{index:03d}/{stem}.wav"
        for split, count in ARGS["songs"].items()
        for index in range(count)
        for stem in STEMS
    }
    for entry in result["files"]:
        audio, sample_rate = soundfile.read(folder / entry["path"], always_2d=True)
        assert (sample_rate, audio.shape) == (8000, (32000, 1)) == (entry["sample_rate"], (entry["frames"], 1))
        assert 0.01 < np.abs(audio).max() <= toy_music.PEAK + 1e-4
        assert hashlib.sha256((folder / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]


def test_no_two_songs_are_alike(built):
    contents = list(bytes_below(built[0], "vocals.wav").values())
    assert len(set(contents)) == len(contents) == 3


def test_more_songs_do_not_change_existing_ones(built, tmp_path):
    toy_music.build_toy_music(ARGS | {"songs": {"test": 2}}, tmp_path, workers=1)
    name = "test/test_000/drums.wav"
    assert (tmp_path / name).read_bytes() == (built[0] / name).read_bytes()


def test_another_seed_changes_the_songs(built):
    other = toy_music.render_song(4, "test", 0, 4.0, 8000)["vocals"]
    stored, _ = soundfile.read(built[0] / "test/test_000/vocals.wav")
    assert not np.allclose(other, stored, atol=0.01)


def test_songs_have_the_requested_duration():
    assert all(len(audio) == 14700 for audio in toy_music.render_song(0, "val", 0, 1 / 3, 44100).values())


def test_a_few_songs_use_every_lead_voice():
    count = len(PROGRAMS["vocals"])
    leads = {toy_music._program_in_turn(PROGRAMS["vocals"], [0, 1], index) for index in range(count)}
    assert leads == set(PROGRAMS["vocals"])


@pytest.mark.parametrize("seed", range(20))
def test_songs_have_musical_structure(seed):
    """Notes in range, a monophonic lead with rests, a bass below it, chords in the lead's range."""
    song = compose(np.random.default_rng(seed), 30.0, {stem: 0 for stem in STEMS})
    assert 84 <= song.tempo <= 148
    for notes in song.notes.values():
        assert max(note.start for note in notes) * 60 / song.tempo > 25
        assert all(0 <= note.pitch < 128 and 0 < note.velocity < 128 and note.duration > 0 for note in notes)
    lead = sorted(song.notes["vocals"], key=lambda note: note.start)
    gaps = [after.start - before.start - before.duration for before, after in itertools.pairwise(lead)]
    assert min(gaps) > -0.2
    assert sum(gap > 0.9 for gap in gaps) >= 4
    lead_pitches, chord_pitches, bass_pitches = (
        np.array([note.pitch for note in song.notes[stem]]) for stem in ("vocals", "other", "bass")
    )
    assert np.median(bass_pitches) + 12 < np.median(lead_pitches)
    within = (chord_pitches >= lead_pitches.min()) & (chord_pitches <= lead_pitches.max())
    assert within.mean() > 0.4


def test_a_key_is_released_before_its_next_note():
    song = compose(np.random.default_rng(1), 20.0, {stem: 0 for stem in STEMS})
    for stem in STEMS:
        sounding = set()
        for message in mido.MidiFile(file=io.BytesIO(toy_music.midi_bytes(song, stem, 20.0))).tracks[0]:
            if message.type == "note_on":
                assert message.note not in sounding
                sounding.add(message.note)
            elif message.type == "note_off":
                sounding.discard(message.note)
        assert not sounding


def test_the_attribution_names_soundfont_author_and_licence(built):
    text = built[1]["attribution"]
    assert "Tim Brechbill" in text and "GNU General Public License, version 2" in text
    assert hashlib.sha256(toy_music._soundfont()).hexdigest() in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"song": {"train": 1}}, "source.args.song: unknown key"),
        ({"songs": {"train": 1.5}}, "source.args.songs: expected a number of songs per split"),
        ({"songs": 3}, "source.args.songs: expected"),
        ({"seed": -1}, "source.args.seed: expected a whole number from 0, found -1"),
        ({"song_duration": 0}, "source.args.song_duration: expected a number above 0, found 0"),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line(args, message, tmp_path):
    with pytest.raises(UserError) as error:
        toy_music.build_toy_music(args, tmp_path, workers=1)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
