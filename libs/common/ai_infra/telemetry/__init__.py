"""How a running service is seen from outside: metrics, logs, health over HTTP, traces.

Telemetry observes and must never decide: nothing here changes what a service says or does, and a telemetry back end
that is away never stops one.
"""
