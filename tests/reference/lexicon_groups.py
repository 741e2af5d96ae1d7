"""The groups of the lexicon, as concepts of WordNet, and the words that people judged: `build_lexicon` says how."""

# Category and group -> its concepts, as WordNet's lemma and number of sense; "-" leaves out what is below one,
# "=" takes the concept alone. A name belongs to the first group that has it.
GROUPS = {
    "fruit/fruit": "edible_fruit.1",
    "vehicle/cycle": "bicycle.1 motorcycle.1 scooter.2 scooter.3 tricycle.1 unicycle.1",
    "vehicle/car": "car.1 truck.1 bus.1 camper.2 -racer.2",
    "vehicle/train": "train.1 locomotive.1 streetcar.1 -scooter.1",
    "vehicle/boat": "boat.1 ship.1 sailing_vessel.1 -scooter.1",
    "vehicle/aircraft": "aircraft.1",
    "vehicle/cart": "wagon.1 cart.1 carriage.2 sled.1",
    "appliance/kitchen": "kitchen_appliance.1 white_goods.1",
    "fixture/plumbing": "plumbing_fixture.1 bathtub.1",
    "fixture/lamp": "lamp.2 chandelier.1 lantern.1 candle.1 candlestick.1 streetlight.1",
    "furniture/seat": "chair.1 sofa.1 bench.1 stool.1 armchair.1",
    "furniture/table": "table.2 table.3 desk.1 counter.1",
    "furniture/bed": "bed.1 baby_bed.1",
    "furniture/storage": "cabinet.1 bookcase.1 chest_of_drawers.1 wardrobe.1 cupboard.1 dresser.1 sideboard.1",
    "clothing/hat": "hat.1 cap.1 headdress.1 helmet.2",
    "clothing/footwear": "footwear.1 footwear.2",
    "clothing/trousers": "trouser.1 jean.1 short_pants.1",
    "clothing/top": "coat.1 shirt.1 sweater.1 jacket.1 blouse.1 vest.1 t-shirt.1 sweatshirt.1",
    "clothing/dress": "dress.1 gown.1 skirt.2 robe.1",
    "clothing/neckwear": "necktie.1 bow_tie.1 scarf.1 necklace.1",
    "container/bag": "bag.1 bag.4 suitcase.1 briefcase.1 backpack.1 purse.1",
    "container/box": "box.1 basket.1 crate.1 bin.1 barrel.2 ashcan.1",
    "container/cup": "cup.1 glass.2 mug.4",
    "container/bowl": "bowl.1 bowl.3 dish.1 plate.4 tray.1 platter.1",
    "container/pot": "pan.1 pan.3 pot.1 teapot.1 kettle.1",
    "container/bottle": "bottle.1 jar.1 jug.1 vase.1 pitcher.2 flask.1 bucket.1",
    "food/drink": "beverage.1",
    "food/sauce": "condiment.1",
    "food/sweet": "cake.3 pie.1 cookie.1 pastry.2 candy.1 dessert.1 doughnut.2 waffle.1 pancake.1 cupcake.1 muffin.1",
    "food/bread": "bread.1 bun.1 roll.3 loaf.2",
    "food/dish": "sandwich.1 pizza.1 soup.1 salad.1 stew.2 pasta.1 hotdog.2 hamburger.1 taco.2 burrito.1 omelet.1"
    " casserole.1",
    "food/meat": "meat.1 sausage.1",
    "food/vegetable": "vegetable.1 -potherb.1",
    "machine/computer": "computer.1 television.3 telephone.1 printer.2 keyboard.1 typewriter.1 radio.2"
    " radio_receiver.1",
    "machine/camera": "camera.1 timepiece.1 projector.2",
    "living_thing/pet": "dog.1 domestic_cat.1 cat.1 fox.1 rabbit.1 squirrel.1 wolf.1",
    "living_thing/beast": "bear.1 big_cat.1 elephant.1 giraffe.1 rhinoceros.1 hippopotamus.1 ape.1 monkey.1 zebra.1"
    " deer.1 camel.1 buffalo.1 bison.1 antelope.1 kangaroo.1",
    "living_thing/livestock": "horse.1 cattle.1 cow.1 ox.1 bull.1 sheep.1 goat.1 pig.1 donkey.1 mule.1 llama.1"
    " pony.1 lamb.1",
    "living_thing/bird": "bird.1 gull.2",
    "living_thing/sea": "shark.1 dolphin.2 whale.2 seal.9 sea_lion.1 walrus.1",
    "living_thing/creature": "frog.1 lizard.1 snake.1 turtle.2 butterfly.1 bee.1 spider.1 beetle.1 ant.1 crab.1"
    " snail.1",
    "living_thing/flower": "flower.1",
    "living_thing/tree": "tree.1 palm.3 bush.1",
    "living_thing/child": "child.1 boy.1 girl.2 toddler.1 baby.1",
    "living_thing/adult": "man.1 woman.1 girl.1 athlete.1 performer.1 serviceman.1 policeman.1 cook.1 waiter.1"
    " cowboy.1 fireman.4 clergyman.1 nurse.1 farmer.1 fisherman.1 rider.1 sailor.1 skier.1"
    " surfer.1 workman.1 craftsman.1 tourist.1"
    " skater.1 =person.1",
    "natural_object/water": "river.1 lake.1 ocean.1 sea.1 pond.1 stream.1 waterfall.1 bay.1 lagoon.1 canal.3",
    "natural_object/hill": "mountain.1 hill.1 cliff.1 valley.1 beach.1 canyon.1 dune.1 volcano.2 glacier.1 forest.2"
    " desert.1",
    "natural_object/rock": "rock.1 log.1",
}

# Replace people: those whom one knows by their looks.
_SEEN = """
    acrobat ballerina baseball_player basketball_player boxer chef clown cook cowboy cyclist dancer drummer farmer
    firefighter fireman fisherman football_player gentleman guitarist gymnast hockey_player jockey juggler
    magician man monk mountaineer musician nun nurse pianist police_officer policeman priest rancher sailor
    saxophonist singer skateboarder skater skier snowboarder soldier surfer swimmer tennis_player tourist
    trumpeter violinist waiter waitress woman
    """
SEEN = frozenset(_SEEN.split())
# Replace although WordNet has them too rarely.
_EVERYDAY = """
    baby_carriage bagel baguette baseball_cap bell_pepper beret biplane blimp bookcase bowler_hat brussels_sprouts
    burrito carafe cardigan catamaran cellphone cheeseburger chest_of_drawers coconut coffee_table cowboy_boot
    croissant cupcake delivery_truck dolphin donut fire_engine fire_truck floor_lamp footstool freezer
    garbage_truck goblet goldfish gondola hammock hotdog kayak kimono kitten kiwi laptop lasagna lunchbox mango
    minivan moped nightstand papaya picnic_table polo_shirt pretzel rocking_horse rowboat saucepan school_bus
    seagull sombrero speedboat sundress table_lamp taco toolbox tricycle turtle tutu unicycle watermelon whale
    """
EVERYDAY = frozenset(_EVERYDAY.split())
# Mostly something else in a caption.
_AMBIGUOUS = """
    arctic band bar bark bath beaver bill blade blocker board boot_camp bow bureau butt can case castor chuck
    cover cows crane crown cutter date dick draw drawer drum dun eggs elder fan fighter fin finish flank flat
    flats flute fly fork formal game general green greens grip heap hood hunter individual jack jerk jersey_city
    jumper kid kite ladder lap lid lift lighter lime litter live_oak loaf local lounge lower major mate medium
    minister mink minor mint mold mole mortal mount mouse nail node notebook ordinary oxford pad page
    parking_meter paste pen pendant pendent perch pet pie_chart pink pitcher plane_tree platform player pocket pop
    port portal primate private pro pulse pump punch rack rib rig ring roll roller rose rubber rump saloon seal
    server shades shin short slip slug snapper soul soy spectator split stand steamer stiff stock stole strand
    striker stud sucker tackle tank tap tapper thong tie-in tower track trap trunks turtle turtleneck upper vamp
    vanilla vanity walker washer wedge whip world wrap
    """
AMBIGUOUS = frozenset(_AMBIGUOUS.split())
# Common, but no image can show just this.
_UNSUITED = """
    abbess absinthe admiral afghan agate aircraft aircraft_carrier airship alarm alcohol alcoholic_beverage
    alcoholic_drink ale- alkali_bee allemande allemande_sauce alley_cat altar amethystine_python amphibian
    analogue_computer andrena anthill anthropoid_ape aperitif applejack aquatic_bird ark arroyo artificial_lake
    atomic_clock attache attack_aircraft_carrier auk auto babe baby_bed balloon bandwagon bartlett_pear
    bathtub_gin battleship bayou bedrock beef beef_cattle beef_stock beef_tenderloin beer_bottle benedictine
    berlin berth beverage bicyclist bier billiard_table bin bird_of_prey bittern bitters black_bread black_olive
    bladder blind_snake bloodhound boa boater bogy boiler bolo bomber booth booze bowlder boy_scout bread_sauce
    breakfast_table breasted_jacket brew brig broiler bronc broody_hen brown_sauce bubbly buckboard buckskin
    buffet bulletin_board bumper bunk burgoo bush_jacket cab calculus camper candelabrum cannon_fodder canteen
    caper caravan card_table cargo_ship carrier cash_register cask cattle chaise charger charlotte checkout
    checkout_counter cheese_sauce chicory child child_prodigy chile chuck_wagon cigar_box citron citrus
    citrus_fruit claret client clipper clodhopper clog closet clothes_dryer coffee_substitute coffeepot coffin
    collar common_bean commuter condensed_milk condiment congress_gaiter conifer corduroys corn cottonmouth
    counter covered_wagon cowl cows crackers crag cream_sauce crepe cress crib_bed crowbait cruiser crystallite
    cuckoo-bumblebee cur curlew currant cut_of_beef cut_of_meat cut_of_pork cycle cyclopes dairy_cattle dark_bread
    daybed denim derby derelict dessert_wine destroyer dewberry dieu digital_computer dining-table dinner_pail
    dirigible disposal diving_duck divinity dogsled domestic_cat domestic_fowl domestic_sheep dope double- dowdy
    draft_horse dried_fruit drink drinking_water drone duffel_bag dump_truck dustbin eared_seal earless_seal
    easy_chair eating_apple edible_fruit electric_light electric_refrigerator elk_hound emperor engine escritoire
    ethyl_alcohol everlasting_flower fauteuil feather_palm felt_hat female_horse female_mammal fennel
    fighter_aircraft fillet fingerboard fish_hawk flannel flask flat_bench flightless_bird flipper flycatcher
    food_fish foot_soldier forequarter fountain fowl freight_train freighter frigate fringed_gentian fritter frock
    frozen_dessert fruit_tree full_skirt funny_wagon fur_seal gallinaceous_bird gallinule gallon_hat gallstone
    game_bird gamecock gamin garden_heliotrope garden_pea gas_stove gelding gem generic geneva gig glider
    goatsucker godchild golden_glow gourd grain grasshopper grayback greatcoat grebe green_onion greens
    ground_squirrel grouse guard_dog guenon gun_dog hammock hamper handset hard_candy hardtack hare haversack
    headdress headgear heifer herbal highball highchair hillock hock hodgepodge hoop_snake horehound horseradish
    hose hosiery hot_rod hound_dog house hulk humus hunting_dog hydrant hydroplane ice_chest ice_pack ice_water
    icebox infant interceptor intoxicant ironclad jackdaw jaeger java jet_plane joint_snake jumble junk kamikaze
    karakul keg ketch kidney_stone kitchen_appliance kitchen_sink kitchen_table knockabout knoll kudu ladies-in-
    lamp_post landrover langur large_white laundry_truck leg_of_lamb legume levis licorice like_drink lined_snake
    liner liqueur liquor liver loaf_of_bread lobscouse lobscuse loin mackinaw male_child male_horse malt man-of-
    war manhattan maraschino maraschino_liqueur mare margarine marinade marmoset marriage_bed marrow mashed_potato
    matzo mead meat meat_pie merchant_ship merganser mescal microcomputer microwave_oven milking_stool millpond
    minced_meat mining_bee minor mite_box miter mixed_drink mixer moa mobcap mock_orange moonshine motorcar mousse
    movie_camera movie_projector muskmelon napoleon nautilus nebuchadnezzar nectar newborn_infant night_heron
    nonpasserine_bird ocean_liner oceanic_bird old_fashioned orange orphan outboard overshoe oxcart oxford pack
    packet pajama papaya paper_bag partridge passenger_ship passenger_train passerine pate patty peacock peafowl
    pemmican peppermint percolator perry personal_computer petrel phosphate piano_stool pickle picture_hat
    pinafore pine_nut pirate pirate_ship pirogue planner plantain plastic_bag platform platform_shoe plover
    plumbing_fixture pogonia pontoon pork_sausage portable_computer porterhouse poster_child pottage pouch poultry
    precipice premature_infant prickly_pear prie- projector prune pulse quail race_horse racehorse racing_boat
    racing_shell radio_receiver ragamuffin railroad_train raisin rancher rat_kangaroo ratite ratite_bird rattler
    raw_milk red-bellied_snake relish riding_boot rift_valley rivulet rock_outcrop rock_python rodent rutabaga rye
    saber-toothed_tiger sable saddle_horse saddlebag safe sailing_ship sailing_vessel salad_green salad_greens
    salsify salt_pork sapling sarsaparilla schoolboy screwdriver scull sea_bird seabird seahorse seaplane serpent
    serving_dish shade_tree shambles shank sheath ship shipwreck shook shorebird shrike siamang sidewinder single-
    single-breasted_jacket skiff skim_milk skimmed_milk skimmer sleeping_bag slicker sling sloop slug small_boat
    small_white snipe snowball snuffbox soda_water songbird sonny sonny_boy soup_bowl sour_milk sowbelly soya
    sparkling_wine spectator_pump spirits sport_shirt sports_jacket sprout squad_car squash stag station_wagon
    steamship steed steel_plate stein stepping_stone stinger strapless straw_hat_maker streamliner stretch_pants
    strongbox submersible suds sugar_bowl sundial supply_closet sweat_bag sweet_orange swimming_hole table_wine
    tamarin taro tea- tea-like_drink teakettle television_set ten- three- throne_room tights tilt-top_table
    timber_tree time_clock timepiece timer tisane titmouse toddy toffee tonic torpedo tourist_class towboat
    toy_dog training_ship tramp tree_of_knowledge tributary troika trolley_car truffle trunk tub turkey_cock tutu
    tv_set tweed typewriter_keyboard unleavened_bread urchin utensil vegetable veloute verbena vermouth
    vest_pocket vintage viper volcano wading_bird wafer waiting wallflower warship washbasin washbowl watch
    weaverbird web_site weevil whisky white_goods white_sauce whiteface wild_horse windfall window_box wine_bottle
    wineglass wing_tip winter_melon wintergreen wood_warbler woodcock work_table workbench workstation worktable
    wormwood wrist_watch yawl year-old_horse young_mammal youngster
    """
UNSUITED = frozenset(_UNSUITED.split())
# Without a plural, as are all names of MASS_GROUPS.
_MASS = """
    asparagus bacon baggage beef beef_tenderloin bread broccoli broth cabbage candy caramel cauliflower celery
    chicken chili chocolate chowder corn cornbread corned_beef custard footwear fudge garlic ground_beef ham
    headgear ice_cream lettuce luggage mail meat mutton okra parsley pasta pastry pork rhubarb rice roast_beef
    salad_oil salt_pork sherbet sirloin soup spaghetti spinach stew taffy tenderloin toast veal venison
    """
MASS = frozenset(_MASS.split())
MASS_GROUPS = frozenset({"food/drink", "food/sauce"})

# Replace trees: those that one knows by their looks.
_TREES = """
    apple_tree ash_tree beech_tree birch_tree bush cedar cherry_tree cypress_tree elm fig_tree holly lemon_tree oak_tree
    olive_tree orange_tree palm_tree pine pine_tree plum_tree walnut_tree willow
    """
TREES = frozenset(_TREES.split())
