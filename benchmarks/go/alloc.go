// alloc: nanoseconds per object, by size and kind, the same loops as benchmarks/alloc.py.
//
// Each type has a loop of its own, because Go chooses the allocator's fast path by the type where new is compiled: a generic loop would hide it.
package main

import "time"

const ring = 1024 // an object is garbage after so many allocations, and it escapes
const bytesPerLoop = 64 << 20

type Pair struct{ left, right *Pair }

type Plain16 struct{ words [2]int64 }
type Linked16 struct {
	ref   *Linked16
	words [1]int64
}
type Plain32 struct{ words [4]int64 }
type Linked32 struct {
	ref   *Linked32
	words [3]int64
}
type Plain64 struct{ words [8]int64 }
type Linked64 struct {
	ref   *Linked64
	words [7]int64
}
type Plain128 struct{ words [16]int64 }
type Linked128 struct {
	ref   *Linked128
	words [15]int64
}
type Plain512 struct{ words [64]int64 }
type Linked512 struct {
	ref   *Linked512
	words [63]int64
}
type Plain2048 struct{ words [256]int64 }
type Linked2048 struct {
	ref   *Linked2048
	words [255]int64
}

var sink any

func loopPair(n int) {
	kept := new([ring]*Pair)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Pair)
	}
}

func loopLinked16(n int) {
	kept := new([ring]*Linked16)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Linked16)
	}
}

func loopPlain16(n int) {
	kept := new([ring]*Plain16)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Plain16)
	}
}

func loopLinked32(n int) {
	kept := new([ring]*Linked32)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Linked32)
	}
}

func loopPlain32(n int) {
	kept := new([ring]*Plain32)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Plain32)
	}
}

func loopLinked64(n int) {
	kept := new([ring]*Linked64)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Linked64)
	}
}

func loopPlain64(n int) {
	kept := new([ring]*Plain64)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Plain64)
	}
}

func loopLinked128(n int) {
	kept := new([ring]*Linked128)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Linked128)
	}
}

func loopPlain128(n int) {
	kept := new([ring]*Plain128)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Plain128)
	}
}

func loopLinked512(n int) {
	kept := new([ring]*Linked512)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Linked512)
	}
}

func loopPlain512(n int) {
	kept := new([ring]*Plain512)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Plain512)
	}
}

func loopLinked2048(n int) {
	kept := new([ring]*Linked2048)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Linked2048)
	}
}

func loopPlain2048(n int) {
	kept := new([ring]*Plain2048)
	sink = kept
	for i := range n {
		kept[i%ring] = new(Plain2048)
	}
}

func nsPerObject(loop func(int), size int) float64 {
	n := max(bytesPerLoop/size, 1<<16)
	loop(n / 8)
	start := time.Now()
	loop(n)
	return float64(time.Since(start).Nanoseconds()) / float64(n)
}

func main() {
	measure(func(run *Run) {
		run.Figures = map[string]float64{
			"pair16": nsPerObject(loopPair, 16),
			"linked16": nsPerObject(loopLinked16, 16),
			"plain16": nsPerObject(loopPlain16, 16),
			"linked32": nsPerObject(loopLinked32, 32),
			"plain32": nsPerObject(loopPlain32, 32),
			"linked64": nsPerObject(loopLinked64, 64),
			"plain64": nsPerObject(loopPlain64, 64),
			"linked128": nsPerObject(loopLinked128, 128),
			"plain128": nsPerObject(loopPlain128, 128),
			"linked512": nsPerObject(loopLinked512, 512),
			"plain512": nsPerObject(loopPlain512, 512),
			"linked2048": nsPerObject(loopLinked2048, 2048),
			"plain2048": nsPerObject(loopPlain2048, 2048),
		}
	})
}
