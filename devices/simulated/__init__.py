"""Hardware that is not there: a core, stages, a scanner's state machine, cameras and what they see."""
