"""The miniature bundle on trial: captions through the real stages and the real store, judged by the world's own truth.

It owns measuring and calibrating; it does not train anything, and no daemon needs it.
"""
