"""The promoter: whether an artifact may serve in an environment, and why.

It decides from what the lane's log says (artifact, signature, evaluation, what serves), asks the policy, and says each
step as a `promotion.decided` that is signed by the promotion key. It never changes what serves: that is the canary's.
"""
