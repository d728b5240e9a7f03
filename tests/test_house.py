"The house keeps the measures that tests/house.py counts; tests/test_layers.py holds imports downward."

import house

from rsssl_nb.methods.registry import METHODS


def test_no_module_is_longer_than_500_lines():
    assert {m: n for m, n in house.lengths().items() if n > 500} == {}


def test_lines_are_narrow_and_hold_one_statement():
    assert house.wide_lines() == [] and house.shared_lines() == []


def test_a_class_with_one_subclass_has_a_use_of_its_own():
    assert house.lone_subclasses(METHODS) == {}


def test_few_names_mean_two_things():
    assert len(house.names_of_two_things()) < 10, house.names_of_two_things()


def test_public_functions_are_annotated():
    assert house.without_annotations() == []


def test_no_imports_go_in_a_circle():
    assert len(set(house.imported("rsssl_nb.methods.grass"))) > 5  # relative and absolute imports are seen
    assert house.circles() == []


def test_every_notebook_is_executed():
    there, executed = house.pages()
    assert there == executed > 100
