// Go's client with its defaults, 20 at once.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const text = `{"payload": "0"}`

func check(response *http.Response, err error) {
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 || len(body) == 0 {
		panic(fmt.Sprint(response.Status, string(body), err))
	}
}

func run(name string, call func()) {
	var wait sync.WaitGroup
	took := make([]time.Duration, 20)
	for i := range took {
		wait.Add(1)
		go func() {
			defer wait.Done()
			began := time.Now()
			call()
			took[i] = time.Since(began)
		}()
	}
	wait.Wait()
	var slowest time.Duration
	for _, one := range took {
		slowest = max(slowest, one)
	}
	fmt.Printf("%d ms  %s\n", slowest.Milliseconds(), name)
}

func main() {
	jobs := os.Args[1] + "/api/v1/jobs"
	post := func(body func() io.Reader) func() {
		return func() { check(http.Post(jobs, "application/json", body())) }
	}
	run("net/http, POST", post(func() io.Reader { return strings.NewReader(text) }))
	// Its length is not known.
	run("net/http, POST of a stream", post(func() io.Reader {
		return io.MultiReader(strings.NewReader(text))
	}))
	run("net/http, POST that expects 100", func() {
		request, _ := http.NewRequest("POST", jobs, strings.NewReader(text))
		request.Header.Set("Expect", "100-continue")
		check(http.DefaultClient.Do(request))
	})
	run("net/http, GET", func() { check(http.Get(jobs)) })
}
