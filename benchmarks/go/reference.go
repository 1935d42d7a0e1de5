package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"time"
)

// The reference programs: what workers/reference has, in Go. Usage: reference PROGRAM ARGUMENT...

type node struct{ left, right *node }

type entry struct {
	data []byte
	key  uint64
}

var (
	kept    = [6]int{64, 100, 200, 500, 1000, 2000}
	dropped = [6]int{16, 48, 128, 300, 800, 4000}
	state   uint64
	table   []*entry
	blocks  [][]byte
	block   []byte
)

func rng() uint64 {
	state ^= state >> 12
	state ^= state << 25
	state ^= state >> 27
	return state * 0x2545F4914F6CDD1D
}

func newEntry() *entry {
	e := &entry{data: make([]byte, kept[rng()%6])}
	e.key = rng()
	return e
}

func replace(n uint64) {
	i := rng() % n
	table[i] = newEntry()
}

func churn(n, m, garbage, force int) int {
	state = 88172645463325252
	table = make([]*entry, n)
	for i := range table {
		table[i] = newEntry()
	}
	for done := 1; done <= m; done++ {
		replace(uint64(n))
		for g := 0; g < garbage; g++ {
			block = make([]byte, dropped[rng()%6])
		}
		if force > 0 && done%force == 0 {
			runtime.GC()
		}
	}
	return 0
}

func sawtooth(rounds, n int) int {
	state = 42424242
	for ; rounds > 0; rounds-- {
		table = nil
		table = make([]*entry, n)
		for i := range table {
			table[i] = newEntry()
		}
		for i := n / 2; i > 0; i-- {
			replace(uint64(n))
		}
	}
	return 0
}

func large(n, m int) int {
	state = 1234567890123456789
	blocks = make([][]byte, n)
	for ; m > 0; m-- {
		i := rng() % uint64(n)
		b := make([]byte, 4096*(1+rng()%64))
		for at := 0; at < len(b); at += 4096 {
			b[at] = 1
		}
		blocks[i] = b
	}
	return 0
}

func nolive(m int) int {
	state = 777
	for ; m > 0; m-- {
		block = make([]byte, dropped[rng()%6])
	}
	return 0
}

func tree(depth int) *node {
	n := new(node)
	if depth > 0 {
		n.left = tree(depth - 1)
		n.right = tree(depth - 1)
	}
	return n
}

func (n *node) count() int {
	if n.left == nil {
		return 1
	}
	return 1 + n.left.count() + n.right.count()
}

func trees(depth int) int {
	check := tree(depth + 1).count()
	kept := tree(depth)
	for d := 4; d <= depth; d += 4 {
		for i := 1 << (depth - d + 4); i > 0; i-- {
			check += tree(d).count()
		}
	}
	return check + kept.count()
}

var peak atomic.Uint64

// watchMapped keeps the most that the memory limit has counted.
func watchMapped() {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	for {
		metrics.Read(samples)
		peak.Store(max(peak.Load(), samples[0].Value.Uint64()-samples[1].Value.Uint64()))
		time.Sleep(time.Millisecond)
	}
}

func main() {
	var a [4]int
	for i, text := range os.Args[2:] {
		a[i], _ = strconv.Atoi(text)
	}
	programs := map[string]func() int{
		"churn":    func() int { return churn(a[0], a[1], a[2], a[3]) },
		"sawtooth": func() int { return sawtooth(a[0], a[1]) },
		"large":    func() int { return large(a[0], a[1]) },
		"nolive":   func() int { return nolive(a[0]) },
		"trees":    func() int { return trees(a[0]) },
	}
	program, known := programs[os.Args[1]]
	if !known {
		fmt.Fprintf(os.Stderr, "there is no program %s\n", os.Args[1])
		os.Exit(2)
	}
	if os.Getenv("SAMPLE_MAPPED") != "" {
		go watchMapped()
	}
	began := time.Now()
	check := program()
	wall := time.Since(began).Seconds()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"check": check, "final_rng": state, "wall_s": wall, "num_gc": stats.NumGC, "peak_mapped": peak.Load(),
	})
}
