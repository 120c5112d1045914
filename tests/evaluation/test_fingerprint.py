from hetmorph.evaluation import fingerprint


def test_a_model_written_anew_is_another(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_text("1")
    before = fingerprint(tmp_path / "m"), fingerprint(tmp_path / "m" / "a")
    assert before[0] == before[1]
    (tmp_path / "m" / "a").write_text("12")
    assert fingerprint(tmp_path / "m") != before[0] and fingerprint("demons") == []
