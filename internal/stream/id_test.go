package stream_test

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weir/internal/stream"
)

func TestNewIDsSortByCreation(t *testing.T) {
	const makers, each = 8, 5000
	made := make([][]string, makers)
	var all sync.WaitGroup
	for i := range makers {
		all.Go(func() {
			for range each {
				made[i] = append(made[i], stream.NewID())
			}
		})
	}
	all.Wait()
	seen := map[string]bool{}
	for i, ids := range made {
		if !slices.IsSorted(ids) {
			t.Errorf("maker %d got ids out of order", i)
		}
		for _, id := range ids {
			seen[id] = true
		}
	}
	if len(seen) != makers*each {
		t.Errorf("%d different ids of %d", len(seen), makers*each)
	}
	if last := slices.Max(slices.Concat(made...)); stream.NewID() <= last {
		t.Error("a later id is not the greatest")
	}
}

func TestNewIDIsURLSafe(t *testing.T) {
	form := regexp.MustCompile(`^[a-z0-9_]{1,32}$`)
	for range 1000 {
		if id := stream.NewID(); !form.MatchString(id) {
			t.Fatalf("id %q is not %s", id, form)
		}
	}
}

func TestNewIDIsRandom(t *testing.T) {
	// Every one of the last 16 digits takes every one of 32 values: 80 bits.
	var values [16]map[byte]bool
	for range 2000 {
		id := stream.NewID()
		for i := range values {
			if values[i] == nil {
				values[i] = map[byte]bool{}
			}
			values[i][id[len(id)-1-i]] = true
		}
	}
	for i, v := range values {
		if len(v) != 32 {
			t.Errorf("digit %d from the end took %d values in 2000 ids", i, len(v))
		}
	}
}

func TestIDTime(t *testing.T) {
	before := time.Now().Truncate(time.Microsecond)
	id := stream.NewID()
	// Ids made faster than one a microsecond run ahead of the clock.
	after := time.Now().Add(time.Second)
	made, ok := stream.IDTime(id)
	if !ok || made.Before(before) || made.After(after) {
		t.Errorf("IDTime(%q) = %v, %v; made between %v and %v", id, made, ok, before, after)
	}
	last := made
	for range 100 {
		made, ok := stream.IDTime(stream.NewID())
		if !ok || !made.After(last) {
			t.Errorf("IDTime %v, %v; want after %v", made, ok, last)
		}
		last = made
	}
}

func TestIDTimeGolden(t *testing.T) {
	tests := []struct {
		id   string
		want time.Time
	}{
		{"st_000000000000000000000000000", time.UnixMicro(0)},
		{"st_00000000001zzzzzzzzzzzzzzzz", time.UnixMicro(1)},
		{"st_000000000100000000000000000", time.UnixMicro(32)},
		{"st_1hpexa1c0000000000000000000", time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)},
	}
	for _, test := range tests {
		if got, ok := stream.IDTime(test.id); !ok || !got.Equal(test.want) {
			t.Errorf("IDTime(%q) = %v (%d), %v; want %v (%d)", test.id, got, got.UnixMicro(), ok, test.want, test.want.UnixMicro())
		}
	}
}

// malformedIDs are no ids of streams, however close they come.
func malformedIDs() []string {
	id := stream.NewID()
	return []string{
		"", "st_", "x", id[1:], id[:len(id)-1], id + "0", "ST_" + id[3:], "st-" + id[3:], strings.ToUpper(id),
		id[:10] + "i" + id[11:], id[:10] + "l" + id[11:], id[:10] + "o" + id[11:], id[:10] + "u" + id[11:],
		id[:29] + "_", id[:29] + ".", id[:29] + "\x00", id[:28] + "é", " " + id[1:], id + " ", id + "\n",
		strings.Repeat("0", len(id)), strings.Repeat("st_", 1000),
	}
}

func TestIDTimeMalformed(t *testing.T) {
	for _, id := range malformedIDs() {
		if made, ok := stream.IDTime(id); ok || !made.IsZero() {
			t.Errorf("IDTime(%.40q) = %v, %v", id, made, ok)
		}
		if stream.Expired(id, time.Now().AddDate(100, 0, 0), time.Hour) {
			t.Errorf("%.40q expired", id)
		}
	}
}

func TestExpired(t *testing.T) {
	id := stream.NewID()
	made, _ := stream.IDTime(id)
	tests := []struct {
		age  time.Duration
		want bool
	}{
		{-time.Hour, false}, {0, false}, {time.Hour - 1, false}, {time.Hour, false}, {time.Hour + 1, true}, {1000 * time.Hour, true},
	}
	for _, test := range tests {
		if got := stream.Expired(id, made.Add(test.age), time.Hour); got != test.want {
			t.Errorf("at the age of %v: expired %v, want %v", test.age, got, test.want)
		}
	}
}
