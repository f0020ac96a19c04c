"""A box without a mesh: the public services in one process, with turns that follow a script in the prompt.

It answers as the contract says, behind the interceptor of the real services, so that a client cannot tell it from the
real box: validation, reasons, one turn at a time per session, streams that resume. `tests.fake_box.script` says what a
prompt can ask for. Run it by itself with `python -m tests.fake_box PORT`.
"""
