"""The faults that the page on reliability lists, and the tests that show each of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
SHOWN_BY = {
    "killed_checkpoint": (
        "util/test_files.py::test_a_kill_at_any_point_leaves_the_old_content_or_the_new",
        "training/test_checkpoints.py::test_the_most_advanced_readable_checkpoint_stands_in",
        "end_to_end/test_kill_and_continue.py::"
        "test_killed_and_continued_training_equals_an_uninterrupted_one",
    ),
    "asked_to_leave": (
        "training/test_interruptions.py::test_a_training_that_left_within_an_epoch_ends_as_if_it_had_not",
        "end_to_end/test_kill_and_continue.py::"
        "test_killed_and_continued_training_equals_an_uninterrupted_one",
        "end_to_end/test_launches.py::"
        "test_a_training_that_was_asked_to_stop_continues_with_any_number_of_processes",
        "end_to_end/test_launches.py::test_processes_save_when_their_parent_is_asked_to_stop",
    ),
    "killed_preprocessing": (
        "data/test_preprocessing.py::test_a_killed_run_continues_and_ends_as_an_uninterrupted_one",
        "data/test_unlabelled_shards.py::test_other_shards_finish_the_work_of_killed_ones",
    ),
    "killed_pseudo_labelling": (
        "pseudo_labels/test_pool.py::test_cases_of_killed_processes_are_labelled_once_and_completely",
        "pseudo_labels/test_pool.py::test_a_kill_at_any_step_of_writing_costs_only_that_case",
        "pseudo_labels/test_label.py::test_a_lost_node_costs_only_time",
    ),
    "full_disk": (
        "util/test_files.py::test_a_full_disk_leaves_the_old_file_and_no_temporary",
        "util/test_files.py::test_a_checkpoint_on_a_full_disk_leaves_the_old_one",
        "data/test_preprocessing.py::test_a_full_disk_is_reported_with_its_free_space",
        "pseudo_labels/test_pool.py::test_a_full_disk_is_not_blamed_on_the_image",
        "cli/test_main.py::test_a_full_or_closed_disk_is_no_traceback",
        "end_to_end/test_full_disk.py::test_a_full_disk_is_reported_and_only_costs_time",
        "end_to_end/test_full_disk.py::"
        "test_a_training_ends_at_a_checkpoint_it_cannot_write_and_continues_from_the_last",
        "end_to_end/test_full_disk.py::test_pictures_that_cannot_be_written_do_not_stop_a_training",
        "data/test_file_bytes.py::test_an_incomplete_written_image_is_a_disk_error",
        "runs/test_commands.py::test_a_log_that_the_disk_does_not_take_costs_nothing",
    ),
    "damaged_file": (
        "end_to_end/test_every_file.py::test_a_damaged_file_is_refused_with_a_fix_or_made_again",
        "end_to_end/test_every_file.py::test_every_written_file_is_of_a_kind_in_the_table",
        "end_to_end/test_every_file.py::test_every_file_name_in_the_code_is_of_a_kind_in_the_table",
    ),
    "moved_or_read_only": (
        "end_to_end/test_every_file.py::test_nothing_is_repeated_or_lost_at_another_place_or_time",
        "end_to_end/test_every_file.py::test_read_only_data_and_results_can_be_used",
    ),
    "killed_rank": (
        "end_to_end/test_launches.py::test_a_killed_process_ends_the_others_and_all_continue_exactly",
        "end_to_end/test_launches.py::"
        "test_a_training_that_was_asked_to_stop_continues_with_any_number_of_processes",
        "end_to_end/test_launches.py::"
        "test_another_number_of_processes_continues_after_a_kill_with_the_same_networks",
        "runs/test_process_group.py::"
        "test_two_machines_train_a_fold_and_continue_by_themselves_after_a_kill",
    ),
    "killed_loader": (
        "training/test_interruptions.py::"
        "test_a_killed_worker_ends_the_training_and_names_the_variable_and_the_cases",
    ),
    "killed_preprocessing_worker": (
        "data/test_preprocessing.py::test_a_killed_worker_only_loses_its_own_case",
    ),
    "not_finite": (
        "laws/test_laws.py::test_i_a_nan_term_stops_training_by_name_and_the_checkpoint_stays",
        "training/test_step.py::"
        "test_gradient_that_is_no_number_stops_training_before_the_weights_change",
    ),
    "corrupt_checkpoint": (
        "training/test_checkpoints.py::test_a_file_cut_at_any_length_is_refused",
        "training/test_checkpoints.py::test_a_flipped_byte_anywhere_is_noticed_or_harmless",
        "training/test_checkpoints.py::test_the_most_advanced_readable_checkpoint_stands_in",
    ),
    "lost_results_folder": (
        "util/test_files.py::test_a_disk_error_is_reported_with_the_fix",
        "end_to_end/test_lost_results.py::"
        "test_a_training_that_loses_its_results_ends_with_a_message_and_continues",
        "runs/test_local.py::test_a_job_without_a_folder_fails_and_the_others_continue",
    ),
    "second_launch": (
        "training/test_one_launch.py::test_a_second_launch_is_told_who_trains_and_removes_nothing",
        "training/test_one_launch.py::test_a_killed_training_holds_nothing_and_its_leftovers_go",
        "util/test_lock.py::test_without_file_locks_the_note_of_a_running_process_decides",
        "runs/test_local.py::test_a_job_that_another_process_works_on_is_left_to_it",
    ),
    "requeued_twice": (
        "end_to_end/test_launches.py::"
        "test_a_job_that_is_queued_twice_does_not_disturb_the_running_one",
        "runs/test_real_slurm.py::test_an_interrupted_training_is_requeued_and_continues",
    ),
    "wrong_clock": (
        "end_to_end/test_surroundings.py::test_a_user_gets_from_images_to_a_report",
        "training/test_checkpoints.py::test_the_clock_does_not_say_which_checkpoint_is_the_newest",
        "end_to_end/test_every_file.py::test_nothing_is_repeated_or_lost_at_another_place_or_time",
        "runs/test_folders.py::"
        "test_a_result_is_older_than_its_source_but_for_the_seconds_of_a_copy",
    ),
    "no_compiler": (
        "training/test_interruptions.py::test_a_network_that_cannot_be_compiled_trains_as_it_is",
    ),
    "absent_companion": (
        "training/test_companions.py::test_a_checkpoint_without_a_companion_is_refused",
    ),
    "interrupt": (
        "cli/test_main.py::test_an_interrupt_says_what_the_same_command_does",
        "runs/test_commands.py::test_interruption_ends_the_child_and_its_workers",
        "runs/test_crossval.py::"
        "test_ctrl_c_pressed_twice_ends_all_processes_and_the_same_command_continues",
        "end_to_end/test_kill_and_continue.py::"
        "test_ctrl_c_pressed_twice_ends_nnunets_command_and_its_workers",
        "runs/test_crossval.py::"
        "test_an_interruption_ends_the_trainings_which_continue_from_the_checkpoint",
    ),
    "no_memory": (
        "training/test_interruptions.py::"
        "test_memory_that_runs_out_in_the_teacher_names_what_to_turn",
        "pseudo_labels/test_pool.py::"
        "test_an_image_too_large_for_the_memory_is_tried_again_after_all_others",
    ),
}


@pytest.mark.parametrize("name", sorted({name for names in SHOWN_BY.values() for name in names}))
def test_the_tests_exist(name: str) -> None:
    file, _, function = name.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_page_lists_every_fault() -> None:
    text = PAGE.read_text(encoding="utf-8")
    _, _, section = text.partition("## Faults of the machine\n")
    section, _, _ = section.partition("\n## ")
    assert re.findall(r"\| `(\w+)` \|$", section, re.MULTILINE) == [*SHOWN_BY]
