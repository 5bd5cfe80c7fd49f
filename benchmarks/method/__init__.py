"""The method of measurement: trials, paired ratios with bootstrap intervals, the A/A arm, goals and verdicts."""
