from __future__ import annotations

import pytest

from etl.errors import InputError
from etl.taxonomy import Taxonomy
from tests.rows import node

TREE = [node("c1", None, "Shoes"), node("c2", "c1", "Sneakers"), node("c3", None, "Kitchen"), node("c4", "c2", "Running")]


def test_a_path_leads_from_the_root_down():
    assert [n.name for n in Taxonomy.of(TREE).path("c4")] == ["Shoes", "Sneakers", "Running"]


def test_roots_and_children_ascend_whatever_the_order_of_rows():
    tree = Taxonomy.of([node("c9", "c1", "Boots"), *TREE[::-1]])
    assert tree.roots == ("c1", "c3")
    assert tree.nodes["c1"].children == ("c2", "c9")


def test_version_depends_on_content_and_not_on_the_order_of_rows():
    assert Taxonomy.of(TREE).version == Taxonomy.of(TREE[::-1]).version
    assert Taxonomy.of(TREE).version != Taxonomy.of([*TREE[:-1], node("c4", "c2", "Racing")]).version


def test_a_cycle_is_refused_with_the_ids_on_it():
    rows = [*TREE, node("x1", "x3", "a"), node("x2", "x1", "b"), node("x3", "x2", "c"), node("x4", "x1", "d")]
    with pytest.raises(
        InputError, match=r"table taxonomy.*\n.*column parent_id makes a cycle: 'x1' -> 'x3' -> 'x2' -> 'x1'"
    ):
        Taxonomy.of(rows)


def test_a_node_that_is_its_own_parent_is_a_cycle():
    with pytest.raises(InputError, match="cycle: 'x1' -> 'x1'"):
        Taxonomy.of([*TREE, node("x1", "x1", "a")])


@pytest.mark.parametrize("parent", ["gone", ""])
def test_an_orphan_is_refused_with_its_parent(parent):
    with pytest.raises(InputError, match=f"column parent_id of category_id 'x1' is '{parent}', which is no category_id"):
        Taxonomy.of([*TREE, node("x1", parent, "a")])


def test_two_roots_of_the_same_name_are_refused():
    with pytest.raises(InputError, match="column name is 'shoes' for 2 roots, category_id 'c1', 'x1'"):
        Taxonomy.of([*TREE, node("x1", None, " SHOES")])


@pytest.mark.parametrize("name", [None, "", " ", "--"])
def test_a_node_without_a_name_is_refused(name):
    with pytest.raises(InputError, match=r"column name is .* for category_id 'x1'"):
        Taxonomy.of([*TREE, node("x1", "c1", name)])


def test_an_id_that_occurs_twice_is_refused():
    with pytest.raises(InputError, match=r"column category_id holds 'c2' 2 times \(expected once\): drop the other rows"):
        Taxonomy.of([*TREE, node("c2", "c1", "Mugs")])


def test_a_node_under_two_parents_is_refused_with_both():
    with pytest.raises(InputError, match="column category_id holds 'c2' 2 times under the parents 'c1', 'c3'"):
        Taxonomy.of([*TREE, node("c2", "c3", "Sneakers")])


def test_all_that_is_wrong_is_said_at_once():
    rows = [*TREE, node("x1", "gone", "a"), node("x2", "c1", ""), node("x3", "x3", "b")]
    with pytest.raises(InputError) as caught:
        Taxonomy.of(rows)
    assert [problem.split()[1] for problem in caught.value.problems] == ["name", "parent_id", "parent_id"]


def test_a_null_id_is_refused():
    with pytest.raises(InputError, match="column category_id is null in 1 rows"):
        Taxonomy.of([*TREE, node(None, "c3", "Mugs")])


def test_an_empty_tree_is_refused():
    with pytest.raises(InputError, match="0 rows"):
        Taxonomy.of([])


def test_a_thousand_levels_are_no_problem():
    rows = [node("c0", None, "root"), *(node(f"c{n}", f"c{n - 1}", f"level {n}") for n in range(1, 1001))]
    assert len(Taxonomy.of(rows).path("c1000")) == 1001


def test_siblings_of_the_same_name_are_kept_and_said(caplog):
    assert len(Taxonomy.of([*TREE, node("c5", "c1", "sneakers")]).nodes) == 5
    assert "2 children of category_id 'c1' have the name 'sneakers'" in caplog.text
