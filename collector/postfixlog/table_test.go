package postfixlog

import (
	"fmt"
	"testing"
)

// TestTable finds what was added, nothing else, and forgets all rather than grow
// beyond its bound.
func TestTable(t *testing.T) {
	names := newTable[int]()
	find := func(i int) (int, bool) {
		name := fmt.Append(nil, "mx", i)
		return names.find(digestOf(name))
	}
	for i := range 2*maxNames + 10 {
		if _, ok := find(i); ok {
			t.Fatalf("%d is there before it was added", i)
		}
		names.add(digestOf(fmt.Append(nil, "mx", i)), i)
		for _, j := range []int{i, i - i%maxNames, i - i%maxNames/2} {
			if v, ok := find(j); !ok || v != j {
				t.Fatalf("%d of %d: %d %v", j, i, v, ok)
			}
		}
	}
	if names.used != 10 || len(names.slots) > 2*maxNames {
		t.Errorf("%d names in %d slots", names.used, len(names.slots))
	}
	if _, ok := find(maxNames); ok {
		t.Error("a name that should be forgotten is there")
	}
}

// benchNames is as many peers as a relay talks to.
func benchNames() (list [][]byte) {
	for i := range 20_000 {
		list = append(list, fmt.Appendf(nil, "mx.the-garden-club-%d.example[192.0.2.%d]:25", i, i%256))
	}
	return list
}

func BenchmarkTable(b *testing.B) {
	list, names := benchNames(), newTable[*peer]()
	for _, n := range list {
		names.add(digestOf(n), new(peer))
	}
	for i := 0; b.Loop(); i++ {
		n := list[i*7919%len(list)]
		if _, ok := names.find(digestOf(n)); !ok {
			b.Fatal(string(n))
		}
	}
}

func BenchmarkMap(b *testing.B) {
	list, names := benchNames(), make(map[string]*peer)
	for _, n := range list {
		names[string(n)] = new(peer)
	}
	for i := 0; b.Loop(); i++ {
		n := list[i*7919%len(list)]
		if _, ok := names[string(n)]; !ok {
			b.Fatal(string(n))
		}
	}
}
