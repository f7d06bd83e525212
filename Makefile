.PHONY: cluster cluster-down

# One real Kubernetes node on this machine, for the tests. Needs root.
cluster:
	scripts/cluster up

cluster-down:
	scripts/cluster down

.PHONY: run
run: ## build, start local mode on testdata/radixconfig.yaml, run an example job, and stay up
	@scripts/try
