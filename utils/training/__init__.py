"""A net, its recorded steps, and the adjoint of a step.

models.py has the table of nets, sgd.py the step from one state to the next, adjoint.py the step
backwards, and trial.py everything that the stages of one trial share.

May import: utils.data, utils.output, utils.kernels and the modules of utils itself.
"""
