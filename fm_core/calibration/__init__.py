"""Calibration: the times and weights of a table fitted to one pipeline's own field.

A published solver is exact on polynomials, whatever the network. But the trajectories of one network are few things
among all that a solver could meet, and a table of N calls has N − 1 + N·(N+1)/2 free numbers: `calibrate` chooses them
so that a pilot of trajectories ends where a fine reference takes it.

    contenders.py   the uncalibrated tables that a calibrated one must beat
    pilot.py        trajectories with their ends
    table.py        a table by its free numbers
    rollout.py      running many tables at once, and derivatives without gradients
    comparing.py    errors of trajectories, of which some may diverge
    fitting.py      robust Gauss–Newton with damping
    guided.py       under which guidance a table was fitted, and whether a run has another
    asking.py       what is asked of a calibration, checked
    trial.py        the fit against the best uncalibrated table, on other noise
    calibrate.py    all of it: what is asked for, and the pipeline with the better
"""
