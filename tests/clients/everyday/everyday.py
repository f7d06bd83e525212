"""Python's clients and the commands of a shell with their defaults, 20 at once."""

import http.client
import json
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import requests

url = sys.argv[1]
jobs = f"{url}/api/v1/jobs"
text = json.dumps({"payload": "0"})


def run(name, call):
    def timed(_):
        began = time.monotonic()
        call()
        return time.monotonic() - began

    with ThreadPoolExecutor(20) as threads:
        slowest = max(threads.map(timed, range(20)))
    print(f"{slowest * 1000:.0f} ms  {name}", flush=True)


def made(code, body):
    assert code == 200 and "name" in json.loads(body), (code, body)


def pieces():
    yield text[:5].encode()
    yield text[5:].encode()


def raw(headers):
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("POST", "/api/v1/jobs", pieces(), headers, encode_chunked=True)
    response = connection.getresponse()
    made(response.status, response.read())


def requests_post(**body):
    response = requests.post(jobs, **body)
    made(response.status_code, response.text)


# To make one reads all certificates, for 50 ms of processor time.
client = httpx.Client()


def httpx_post(**body):
    response = client.post(jobs, **body)
    made(response.status_code, response.text)


def urllib_post():
    with urllib.request.urlopen(jobs, text.encode()) as response:
        made(response.status, response.read())


run("requests, POST", lambda: requests_post(json=json.loads(text)))
run("requests, POST of a generator", lambda: requests_post(data=pieces()))
run("requests, GET", lambda: requests.get(jobs).raise_for_status())
run("httpx, POST", lambda: httpx_post(json=json.loads(text)))
run("httpx, POST of a generator", lambda: httpx_post(content=pieces()))
run("urllib, POST", urllib_post)
run("http.client, POST in chunks", lambda: raw({"Transfer-Encoding": "chunked"}))


def command(name, *words, stdin=None, succeeds=True):
    def call():
        done = subprocess.run(words, input=stdin, capture_output=True, text=True)
        if succeeds:
            assert done.returncode == 0, done
            made(200, done.stdout)
        else:
            assert done.returncode != 0, done

    run(name, call)


curl = ("curl", "-sS", "--fail-with-body", jobs)
command("curl, POST", *curl, "-d", text)
command("curl --http2, POST", *curl, "--http2", "-d", text)
command("curl -T -, POST", *curl, "-X", "POST", "-T", "-", stdin=text)
command("curl, POST that expects 100", *curl, "-H", "Expect: 100-continue", "-d", text)
command("curl, POST in chunks", *curl, "-H", "Transfer-Encoding: chunked", "-d", text)
command("curl -0, POST", *curl, "-0", "-d", text)
# There is no answer to it in HTTP/2, but one that ends it.
command("curl --http2-prior-knowledge", *curl, "--http2-prior-knowledge", succeeds=False)
for wget in (("wget",), *([(sys.argv[2], "wget")] if len(sys.argv) > 2 else [])):
    command(f"{' '.join(wget).rsplit('/', 1)[-1]}, POST", *wget, "-q", "-O", "-", "--post-data", text, jobs)
