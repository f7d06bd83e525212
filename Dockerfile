# The image is the binary, which is static: `make build` first.
FROM scratch
COPY target/job-scheduler /job-scheduler
USER 65532:65532
ENTRYPOINT ["/job-scheduler"]
