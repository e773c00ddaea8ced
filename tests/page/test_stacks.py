from pages import layered, tensor

from converter.page.stacks import stacks_of


def test_layers_become_a_stack_and_the_rest_stays_beside_it() -> None:
    (stack,), rest = stacks_of(layered(3))
    assert stack.name == "layers.{0..2}"
    assert stack.layers == ((0,), (1,), (2,))
    assert stack.kinds == (
        "attention.q.weight",
        "fc1.weight",
        "fc2.weight",
        "norm.weight",
        "fc1.bias",
    )
    assert stack.tensors["fc2.weight", (1,)].name == "layers.1.fc2.weight"
    assert [t.name for t in rest] == ["embedding.weight"]


def test_an_index_below_which_there_is_a_whole_layer_belongs_to_the_layer() -> None:
    kinds = ("a", "b", "c", "d", "e")
    names = [f"stages.{s}.blocks.{b}.{kind}" for s in range(2) for b in range(3) for kind in kinds]
    (stack,), rest = stacks_of(tensor(name, 4) for name in names)
    assert stack.name == "stages.{0..1}.blocks.{0..2}"
    assert stack.layers == tuple((s, b) for s in range(2) for b in range(3))
    assert stack.kinds == kinds
    assert rest == ()


def test_an_index_below_which_there_is_little_belongs_to_the_kind() -> None:
    names = [f"layers.{i}.net.{n}.{leaf}" for i in range(2) for n in (0, 2) for leaf in ("w", "b")]
    (stack,), _ = stacks_of(tensor(name, 4) for name in names)
    assert stack.layers == ((0,), (1,))
    assert stack.kinds == ("net.0.w", "net.0.b", "net.2.w", "net.2.b")


def test_a_number_within_a_word_is_no_index() -> None:
    stacks, rest = stacks_of([tensor("fc1.weight", 4), tensor("fc2.weight", 4)])
    assert (stacks, len(rest)) == ((), 2)


def test_what_repeats_once_is_no_stack() -> None:
    stacks, rest = stacks_of([tensor("layers.0.weight", 4), tensor("layers.0.bias", 4)])
    assert (stacks, len(rest)) == ((), 2)


def test_small_stacks_of_the_same_layers_beside_each_other_are_one() -> None:
    names = [f"wavenet.{word}.{i}.weight" for word in ("in", "skip") for i in range(3)]
    (stack,), _ = stacks_of(tensor(name, 4) for name in names)
    assert stack.name == "wavenet.*.{0..2}"
    assert stack.kinds == ("in.#.weight", "skip.#.weight")
    assert len(stack.tensors) == 6


def test_a_layer_may_lack_a_kind() -> None:
    names = ["h.0.a", "h.1.a", "h.1.skip"]
    (stack,), _ = stacks_of(tensor(name, 4) for name in names)
    assert ("skip", (0,)) not in stack.tensors
    assert ("skip", (1,)) in stack.tensors
