"""What holds on one server holds on a cluster: the same tests, with the fixtures of this folder."""

from __future__ import annotations

# ruff: noqa: F401 - pytest collects what is imported here.
from tests.test_job import (
    test_a_cancel_survives_the_stop_of_its_worker,
    test_a_cancelled_job_that_is_retried_runs_exactly_once,
    test_a_cancelled_job_that_waits_or_is_delayed_never_runs,
    test_a_dead_letter_goes_back_to_the_queue_it_came_from,
    test_a_retried_dead_job_has_all_its_attempts_and_leaves_nothing_behind,
    test_a_running_job_is_cancelled_from_another_app,
    test_cancel_says_no_to_a_job_that_has_ended,
    test_retry_says_no_to_a_job_that_is_neither_dead_nor_cancelled,
)
from tests.test_queue import (
    test_a_dead_letter_is_found_through_its_own_queue_and_through_the_dead_letter_queue,
    test_clear_counts_only_what_it_deletes,
    test_clear_deletes_all_jobs_of_one_status_and_no_other,
    test_drain_waits_until_nothing_is_left_to_do,
    test_jobs_of_every_other_status_are_listed_once_each,
    test_nothing_starts_while_a_queue_is_paused_and_all_runs_after,
    test_queues_that_share_a_dead_letter_queue_get_back_their_own,
    test_retry_failed_puts_all_dead_jobs_back_with_their_attempts,
    test_stats_count_the_jobs_of_every_status,
    test_waiting_jobs_are_listed_once_each_in_the_order_in_which_they_run,
)
from tests.test_result import (
    test_a_key_is_free_again_when_its_job_died,
    test_a_key_names_one_unfinished_job,
    test_a_result_that_is_not_kept_reaches_who_waits_and_nobody_later,
    test_only_so_many_dead_and_cancelled_jobs_are_kept,
    test_progress_and_log_lines_are_seen_from_another_app,
    test_result_of_a_job_that_completes_during_the_wait,
    test_result_of_a_job_that_dies_in_another_queue_during_the_wait,
)
from tests.worker.test_registration import test_a_worker_names_its_queues_and_their_dead_letter_queues
from tests.worker.test_waking import (
    test_a_queue_whose_wake_list_is_no_list_keeps_no_other_queue_waiting,
    test_a_worker_is_woken_for_a_queue_that_was_at_its_limit_when_it_blocked,
    test_a_worker_is_woken_for_a_queue_that_was_paused_when_it_blocked,
    test_a_worker_leaves_no_list_of_its_own,
)
