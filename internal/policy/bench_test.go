package policy

import "testing"

func BenchmarkFind(b *testing.B) {
	d := newFakeDNS("example.com")
	f := New(Options{Resolver: d})
	defer f.Close()
	f.Find("example.com", "example.com")
	if err := f.Wait(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if a, err := f.Find("example.com", "example.com"); err != nil || a.Record == "" {
			b.Fatal(err)
		}
	}
}
