from __future__ import annotations

import pytest

from etl.errors import InputError
from etl.vocabulary import Vocabulary
from tests.rows import term


def test_forms_are_the_term_and_its_synonyms_once_each():
    rows = [term("t1", "Sneakers", synonyms=["trainers", "SNEAKERS", None, "  ", "Trainers"])]
    assert Vocabulary.of(rows).terms[0].forms == ("Sneakers", "trainers")


def test_terms_that_are_not_active_are_left_out_and_a_null_status_is_active():
    rows = [term("t1", "kettle", status="retired"), term("t2", "sneakers", status=None), term("t3", "mug", status="Active")]
    assert [t.term_id for t in Vocabulary.of(rows).terms] == ["t2", "t3"]


def test_version_depends_on_content_and_not_on_the_order_of_rows():
    rows = [term("t1", "kettle"), term("t2", "sneakers")]
    assert Vocabulary.of(rows).version == Vocabulary.of(rows[::-1]).version
    assert Vocabulary.of(rows).version != Vocabulary.of([rows[0], term("t2", "sneaker")]).version


def test_synonyms_that_are_null_are_none():
    assert Vocabulary.of([term("t1", "kettle", synonyms=None)]).terms[0].forms == ("kettle",)


@pytest.mark.parametrize("text", [None, "", "  ", "!!!", "👟"])
def test_a_term_with_no_text_is_refused_by_its_id(text):
    with pytest.raises(InputError, match=r"table vocabulary.*\n.*column term is .* for term_id 't7'"):
        Vocabulary.of([term("t1", "kettle"), term("t7", text)])


def test_a_term_as_long_as_a_page_is_refused():
    with pytest.raises(InputError, match="column term has 1000000 characters for term_id 't7'"):
        Vocabulary.of([term("t7", "x" * 1_000_000)])


def test_a_term_id_that_occurs_twice_is_refused():
    with pytest.raises(InputError, match="column term_id holds 't1' 2 times"):
        Vocabulary.of([term("t1", "kettle"), term("t1", "pot")])


def test_a_null_term_id_is_refused():
    with pytest.raises(InputError, match="column term_id is null in 1 rows"):
        Vocabulary.of([term(None, "kettle")])


def test_a_vocabulary_without_an_active_term_is_refused():
    with pytest.raises(InputError, match="column status is active in none of 1 rows"):
        Vocabulary.of([term("t1", "kettle", status="retired")])


def test_all_problems_are_told_at_once_and_many_are_summed_up():
    with pytest.raises(InputError) as error:
        Vocabulary.of([term(f"t{n}", None) for n in range(1000)])
    assert str(error.value).count("column term is None") == 20
    assert "and 980 more" in str(error.value)
