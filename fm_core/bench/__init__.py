"""The benchmark suite: contenders on problems, with true errors, costs, error bars and a report.

problem       what is solved: a pipeline, source samples, and where the truth takes them
suite         cells of problem × contender × settings × seed, each measured into one record
records       results.jsonl: what was measured, where and by which command; a suite goes on from it
statistics    medians with confidence intervals, and "no difference"
orders        orders of convergence, declared and measured
report        one HTML file of what was found
"""
