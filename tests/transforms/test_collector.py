import gc

from transforms import collector


def test_the_collector_is_slow_until_everybody_has_let_go():
    usual, frozen = gc.get_threshold(), gc.get_freeze_count()
    collector.hold_back()
    collector.hold_back()
    collector.let_go()
    assert gc.get_threshold() != usual
    assert gc.get_freeze_count() > frozen
    collector.let_go()
    assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, 0)
