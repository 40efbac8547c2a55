package policy

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A list of what is there, the last used last, is the model of an lru.
func TestLRU(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const maxCount, maxBytes = 5, 20
		c := newLRU(maxCount, maxBytes, func(_ string, v int) int { return v })
		var model []string
		values := map[string]int{}
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			key := fmt.Sprint(rapid.IntRange(0, 8).Draw(t, "key"))
			was := slices.Contains(model, key)
			if rapid.Bool().Draw(t, "get") {
				if v, ok := c.get(key); ok != was || ok && v != values[key] {
					t.Fatalf("%s: %d, %t; want %d, %t", key, v, ok, values[key], was)
				}
				if !was {
					continue
				}
			} else {
				values[key] = rapid.IntRange(0, 25).Draw(t, "value")
				c.put(key, values[key])
			}
			model = append(slices.DeleteFunc(model, func(k string) bool { return k == key }), key)
			for len(model) > maxCount || sum(model, values) > maxBytes {
				model = model[1:]
			}
			if c.len() != len(model) || c.bytes != sum(model, values) {
				t.Fatalf("%d elements, %d bytes; want %d, %d", c.len(), c.bytes, len(model), sum(model, values))
			}
		}
	})
}

func sum(keys []string, values map[string]int) (n int) {
	for _, k := range keys {
		n += values[k]
	}
	return n
}
