%
(A plate of 60 x 40 mm: a pocket, two holes, and its outline. Written by hand for these tests.)
G90 G94 G17
G21
M3 S12000
G4 P0.5
G0 Z5
(pocket)
G0 X15 Y12
G1 Z-1 F300
G1 X45 F900
Y28
X15
Y12
G0 Z5
(corner by arcs)
G0 X10 Y0
G1 Z-1.5 F300
X50 F800
G3 X60 Y10 I0 J10
G1 Y30
G3 X50 Y40 R10
G1 X10
G3 X0 Y30 I0 J-10
G1 Y10
G3 X10 Y0 R10
G0 Z5
M5
M0 (turn the plate, then release)
M3
g0 x30 y20 ; small letters are as good
G91
G1 Z-6 F200
Z6
G90
G0 Z15
M5
M30
%
