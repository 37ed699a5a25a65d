package main

import (
	"slices"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	var out strings.Builder
	r := report{out: &out, tests: map[test]string{}}
	for line := range strings.Lines(`go: not an event
{"ImportPath":"p [p.test]","Action":"build-output","Output":"p.go:1: undefined\n"}
{"Action":"output","Package":"a","Test":"TestPass","Output":"=== RUN   TestPass\n"}
{"Action":"output","Package":"a","Test":"TestPass","Output":"not shown\n"}
{"Action":"pass","Package":"a","Test":"TestPass"}
{"Action":"output","Package":"a","Test":"TestFail","Output":"reason\n"}
{"Action":"output","Package":"b","Test":"TestFail","Output":"of another package\n"}
{"Action":"fail","Package":"a","Test":"TestFail"}
{"Action":"output","Package":"a","Test":"TestSkip","Output":"    a_test.go:1: no browser\n"}
{"Action":"output","Package":"a","Test":"TestSkip","Output":"--- SKIP: TestSkip (0.00s)\n"}
{"Action":"skip","Package":"a","Test":"TestSkip"}
{"Action":"skip","Package":"a","Test":"FuzzInput/seed#0"}
{"Action":"output","Package":"a","Test":"TestDied","Output":"panic: boom\n"}
{"Action":"output","Package":"a","Output":"FAIL\ta\t0.1s\n"}
{"Action":"fail","Package":"a"}
{"Action":"output","Package":"c","Output":"PASS\n"}
{"Action":"output","Package":"c","Output":"ok  \tc\t0.1s\n"}
{"Action":"pass","Package":"c"}
{"Action":"skip","Package":"without tests"}
`) {
		r.line([]byte(line))
	}
	want := "go: not an event\np.go:1: undefined\nreason\npanic: boom\nFAIL\ta\t0.1s\nok  \tc\t0.1s\n"
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
	if want := []string{"a TestSkip a_test.go:1: no browser"}; !slices.Equal(r.skipped, want) {
		t.Errorf("skipped %q, want %q", r.skipped, want)
	}
}
