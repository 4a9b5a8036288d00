"""airlift-swap: the edge host's own keeper of what Nginx serves.

Ansible renders the wanted configuration into a directory and calls this agent; the agent alone
decides which colour is active, puts a configuration into service, and proves that Nginx runs it.
Standard library and the engine's command line only: it must work when nothing else does.

A configuration is a *tree* with a generation number. `live` is a symbolic link to the tree in
service, so that one rename replaces all of it and a reboot finds either the old or the new one:

    /etc/airlift/edge/desired/         what Ansible wants (templates, certificates, upstreams)
    /etc/airlift/edge/trees/000007/    one generation, complete
    /etc/airlift/edge/live             -> trees/000007
    /var/lib/airlift/swap/state.json   active colour, release, generation, since; what stands by
    /var/lib/airlift/swap/journal      what was begun and what was done, a JSON object a line
    /var/lib/airlift/swap/lease.json   who may change the site now, and until when
    /run/airlift/                      what the watch saw last (replicas.json, replicas.prom)

One command is a daemon: `watch` asks each replica every second and keeps requests from those that
are not ready. It marks them in the live tree, which is no new generation.

Every command starts from what is there, not from what an earlier run meant to do.
Answers are one JSON object on standard output. Exit codes: 0 done, 1 refused or failed, 2 usage,
3 another run holds the lease.
"""
